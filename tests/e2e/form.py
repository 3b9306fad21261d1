"""The form of a deployment in Prefect's UI, filled in as a person does it, who counts the clicks."""

from __future__ import annotations

from playwright.sync_api import Locator, Page


class Form:
    """The form of `Run -> Custom run`, opened from the deployment's page."""

    def __init__(self, page: Page, site: str, deployment_id: str) -> None:
        self._page = page
        self.num_clicks = 0
        page.goto(f"{site}/deployments/deployment/{deployment_id}")
        self._click(page.get_by_role("button", name="Run", exact=True))
        self._click(page.get_by_text("Custom run"))
        self.submit_button.wait_for()

    @property
    def submit_button(self) -> Locator:
        return self._page.get_by_role("button", name="Submit")

    @property
    def height_px(self) -> int:
        """Of everything that can be scrolled to."""
        heights: int = self._page.evaluate(
            "Math.max(...[...document.querySelectorAll('*')].map(element => element.scrollHeight))"
        )
        return heights

    @property
    def num_controls(self) -> int:
        """What can be filled in, chosen or switched."""
        kinds = "input:visible, textarea:visible, [role=switch]:visible, .p-select-button__control:visible"
        return self._page.locator(kinds).count()

    def choose(self, title: str, option: str) -> None:
        control = self._field(title).locator(".p-select-button__control")
        # In a headless Chromium, Prefect's list closes with the very click that opens it; the space bar opens it.
        control.focus()
        self._page.keyboard.press("Space")
        self.num_clicks += 1
        self._click(self._page.locator(".p-select-option:visible").get_by_text(option, exact=True))

    def fill(self, title: str, text: str) -> None:
        self._type(self._field(title).locator("input, textarea").first, text)

    def switch(self, title: str) -> None:
        self._click(self._field(title).get_by_role("switch"))

    def add(self, title: str, text: str) -> None:
        """An item of a list."""
        field = self._field(title)
        self._click(field.get_by_role("button", name="Add item"))
        self._type(field.locator("textarea, input").last, text)

    def submit(self) -> str:
        """The id of the run. A busy server is asked again, as its client does."""
        for _ in range(5):
            with self._page.expect_response(lambda response: response.url.endswith("/create_flow_run")) as made:
                self.submit_button.click()
            if made.value.status != 503:
                break
        self.num_clicks += 1
        assert made.value.ok, made.value.text()
        return str(made.value.json()["id"])

    def _field(self, title: str) -> Locator:
        named = self._page.locator("label", has_text=f"{title} (Optional)").first
        # The innermost box with that label and something to fill in.
        return named.locator("xpath=ancestor::*[contains(@class, 'schema-form-property')][1]")

    def _click(self, locator: Locator) -> None:
        locator.click()
        self.num_clicks += 1

    def _type(self, locator: Locator, text: str) -> None:
        self._click(locator)
        locator.fill(text)
