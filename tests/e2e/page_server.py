"""The page as a process of its own, and a real Chromium in front of it.

with served(lake) as address, chromium() as browser:
    page = Visit(browser, address)
    page.tab("Dataset")
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, sync_playwright

from sp_data.lake import Lake

CHROMIUM = Path("/usr/bin/chromium")
ADDRESS = re.compile(r"http://127\.\S+")
REFUSED = ("was not uploaded by a user", "Give a file, not an address")
"""What Gradio prints of requests that no browser sends."""
WAIT_MS = 60_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@contextlib.contextmanager
def served(lake: Lake, *options: str) -> Iterator[str]:
    """The address of `sp-data ui`, which ends with SIGTERM and has asked nobody beyond this machine for anything."""
    asked = Path(lake.root).with_name("asked-by-the-page.txt")
    script = Path(__file__).with_name("audited_command.py")
    command = [sys.executable, str(script), str(asked), "ui", lake.dataset, "--lake", lake.url, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        try:
            while (match := ADDRESS.search(said)) is None:
                line = process.stdout.readline()
                assert line, f"the page did not start: {said}"
                said += line
            yield match[0]
        finally:
            process.send_signal(signal.SIGTERM)
            said += process.communicate(timeout=30)[0]
        assert process.returncode == 0, said
        assert not asked.exists(), asked.read_text()
        tracebacks = said.split("Traceback (most recent call last)")[1:]
        assert all(any(sentence in one for sentence in REFUSED) for one in tracebacks), said


@contextlib.contextmanager
def chromium(**options: Any) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"], **options)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One visitor's page; with the context of another visit, another tab of that visitor's."""

    def __init__(
        self,
        browser: Browser,
        address: str,
        viewport: dict[str, int] | None = None,
        context: BrowserContext | None = None,
        **options: Any,
    ) -> None:
        self.address = address
        self.context = context or browser.new_context(viewport=viewport or DESK, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.asked: list[str] = []
        """Every address that the page asked for."""
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.get_by_role("tab", name="Dream").wait_for()
        # The page's last event on opening names the checkpoints.
        self.page.get_by_text("Drawn by").first.wait_for()

    def close(self) -> None:
        self.context.close()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def fill(self, field: str, value: str | int) -> None:
        """Put a value into a field, by its id."""
        element = self.page.locator(f"#{field}").locator(
            "textarea, input[type=text], input[type=number], input:not([type])"
        )
        element.first.fill(str(value))
        element.first.blur()

    def value(self, field: str) -> str:
        return self.page.locator(f"#{field}").locator("textarea, input").first.input_value()

    def upload(self, field: str, path: Path) -> None:
        self.page.locator(f"#{field} input[type=file]").set_input_files(path)

    def choose(self, field: str, option: str) -> None:
        """An option of a dropdown, by its words."""
        self.page.locator(f"#{field} input").click()
        self.page.get_by_role("option", name=option).first.click()

    def results(self, tab: str) -> Locator:
        return self.page.locator(f"#{tab}-results")

    def cards(self, tab: str, count: int) -> Sequence[Locator]:
        """The pictures of a tab, once there are so many and it draws no more."""
        results = self.results(tab)
        results.get_by_text("kept in generated/").wait_for()
        cards = results.locator(".sp-card").all()
        assert len(cards) == count, results.inner_text()
        return cards

    def draw(self, tab: str) -> None:
        self.page.locator(f"#{tab}-draw").click()

    def download(self, card: Locator) -> bytes:
        with self.page.expect_download() as expected:
            card.get_by_role("link", name="Download").click()
        return Path(expected.value.path()).read_bytes()

    def outside(self) -> list[str]:
        """What was asked of anyone but the page's own server."""
        return [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]


def wait_until(condition: Any, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
