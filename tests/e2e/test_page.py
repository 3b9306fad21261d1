"""The page in a real Chromium: what a visitor does on each tab, and what the page must never do."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.page_server import CHROMIUM, PHONE, Visit, chromium, served, wait_until
from PIL import Image
from playwright.sync_api import Browser
from shared_lake import copied

from sp_data import manifest as manifests
from sp_data.generation.picture import read_origin
from sp_data.lake import Lake

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">${document.title=`owned`}{{constructor}}"
FAST = 4
"""Steps."""


@pytest.fixture(scope="module")
def lake(trained_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A copy in which the first picture has a hostile caption."""
    lake = copied(trained_lake, tmp_path_factory.mktemp("page"))
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    path = Path(lake.full(verified.details["shards"][0]["parquet"]["path"]))
    table = pq.read_table(path)
    for name in ("caption", "title", "licence"):
        place = table.schema.get_field_index(name)
        values = [HOSTILE, *table[name].to_pylist()[1:]]
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    pq.write_table(table, path)
    return lake


@pytest.fixture(scope="module")
def address(lake: Lake) -> Iterator[str]:
    with served(lake) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """One visitor who does all of this, one thing after the other."""
    visit = Visit(browser, address)
    for tab in ("dream", "variation", "inpaint"):
        visit.tab(tab.capitalize())
        visit.page.locator(f"#{tab}-draw").wait_for()
        visit.page.get_by_role("button", name="Finer settings").locator("visible=true").click()
        visit.fill(f"{tab}-steps", FAST)
        if tab != "variation":
            visit.fill(f"{tab}-prior-steps", FAST)
    yield visit
    visit.close()


@pytest.fixture
def picture(lake: Lake, tmp_path: Path) -> Path:
    """A noisy one, so that no two pixels are alike; no square."""
    pixels = np.random.default_rng(7).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_two_prompts_with_two_pictures_each_are_drawn_and_kept(visit: Visit, lake: Lake) -> None:
    visit.tab("Dream")
    visit.fill("dream-prompts", "a kid in a red coat\na kid in a teal coat")
    visit.fill("dream-seed", 7)
    visit.draw("dream")
    cards = visit.cards("dream", 4)
    words = [card.locator(".sp-words").inner_text() for card in cards]
    assert words == ["a kid in a red coat"] * 2 + ["a kid in a teal coat"] * 2
    assert [card.get_by_text("seed").inner_text() for card in cards] == ["seed 7", "seed 8"] * 2
    for card in cards:
        assert card.locator(".sp-near img").count() == 3
    data = visit.download(cards[1])
    origin = read_origin(data, "downloaded")
    assert (origin["prompt"], origin["seed"], origin["steps"]) == ("a kid in a red coat", 8, [FAST, FAST])
    assert data in [lake.read_bytes(path) for path in lake.list("generated") if path.endswith(".png")]


def test_a_seed_is_used_again_by_a_click(visit: Visit) -> None:
    visit.tab("Dream")
    card = visit.cards("dream", 4)[1]
    before = visit.download(card)
    card.get_by_role("button", name="seed 8").click()
    assert visit.value("dream-seed") == "8"
    visit.fill("dream-prompts", "a kid in a red coat")
    visit.fill("dream-pictures", 1)
    visit.draw("dream")
    wait_until(lambda: visit.results("dream").locator(".sp-card").count() == 1, "the picture")
    assert visit.download(visit.cards("dream", 1)[0]) == before


def test_a_prompt_is_text_and_no_html(visit: Visit) -> None:
    visit.tab("Dream")
    visit.fill("dream-prompts", HOSTILE)
    visit.draw("dream")
    visit.results("dream").get_by_text(HOSTILE).wait_for()
    assert visit.page.title() == "demo · sp-data"


def test_an_empty_prompt_is_a_sentence(visit: Visit) -> None:
    visit.tab("Dream")
    visit.fill("dream-prompts", "  ")
    visit.draw("dream")
    visit.results("dream").get_by_text("An empty prompt").wait_for()


def test_variations_are_drawn_of_an_upload(visit: Visit, picture: Path) -> None:
    visit.tab("Variation")
    visit.upload("variation-picture", picture)
    visit.page.locator("#variation-picture img").wait_for()
    visit.draw("variation")
    origin = read_origin(visit.download(visit.cards("variation", 2)[0]), "downloaded")
    assert (origin["kind"], origin["inputs"][0]["name"]) == ("variation", "noise.png")


def test_what_is_painted_is_drawn_anew_and_the_rest_stays_byte_for_byte(visit: Visit, picture: Path) -> None:
    visit.tab("Inpaint")
    visit.upload("inpaint-picture", picture)
    canvas = visit.page.locator(".sp-painter canvas")
    box = canvas.bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4
    visit.page.mouse.move(left, top)
    visit.page.mouse.down()
    visit.page.mouse.move(left + box["width"] * 0.3, top, steps=5)
    visit.page.mouse.move(left + box["width"] * 0.3, top + box["height"] * 0.2, steps=5)
    visit.page.mouse.up()
    visit.fill("inpaint-prompt", "a kid in a red coat")
    visit.fill("inpaint-pictures", 1)
    visit.fill("inpaint-repeats", 1)
    visit.draw("inpaint")
    after = np.asarray(Image.open(io.BytesIO(visit.download(visit.cards("inpaint", 1)[0]))))
    before = np.asarray(Image.open(picture))
    assert after.shape == before.shape
    changed = (after != before).any(axis=2)
    # The stroke: from 30 % to 60 % of the width at 40 % of the height, then down to 60 %; the brush is round and wide.
    assert changed[36:40, 40:76].mean() > 0.9
    assert changed[45:57, 75:78].mean() > 0.9
    rows, columns = np.nonzero(changed)
    assert rows.min() > 30 and rows.max() < 66
    assert columns.min() > 30 and columns.max() < 86


def test_nothing_painted_is_a_sentence(visit: Visit) -> None:
    visit.tab("Inpaint")
    visit.page.get_by_role("button", name="Clear", exact=True).locator("visible=true").last.click()
    visit.draw("inpaint")
    visit.results("inpaint").get_by_text("Nothing is painted").wait_for()


def test_a_mask_is_painted_by_keyboard(visit: Visit) -> None:
    visit.tab("Inpaint")
    canvas = visit.page.locator(".sp-painter canvas")
    canvas.focus()
    for key in ("ArrowLeft", "Space", "ArrowRight", "ArrowRight", "Space"):
        visit.page.keyboard.press(key)
    num_painted = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter(value => value).length / 4"
    assert canvas.evaluate(num_painted) > 1000
    visit.page.get_by_role("button", name="Undo").click()
    assert canvas.evaluate(num_painted) == 0


def test_uploads_that_are_broken_or_too_large_are_a_sentence(visit: Visit, tmp_path: Path, picture: Path) -> None:
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:3000])
    Image.new("RGB", (10_000, 5_000)).save(tmp_path / "huge.png")
    visit.tab("Inpaint")
    for name, words in (("broken.png", "cut-off"), ("huge.png", "too-many-pixels")):
        visit.page.locator("#inpaint-picture").get_by_role("button", name="Remove").click()
        visit.upload("inpaint-picture", tmp_path / name)
        sentence = visit.page.locator(".sp-bad", has_text=words)
        sentence.wait_for()
        assert sentence.inner_text().startswith(f"{name} cannot be read as a picture")
    visit.page.locator("#inpaint-picture").get_by_role("button", name="Remove").click()
    with (tmp_path / "heavy.png").open("wb") as file:
        file.truncate(52_000_000)
    visit.upload("inpaint-picture", tmp_path / "heavy.png")
    visit.page.get_by_text("More than 50 MB").wait_for()
    visit.page.get_by_text("×").first.click()


def test_the_dataset_is_searched_by_words(visit: Visit) -> None:
    visit.tab("Dataset")
    visit.results("dataset").get_by_text("1 to 24 of").wait_for()
    visit.fill("dataset-query", "a kid in a red coat")
    visit.page.locator("#dataset-search").click()
    visit.results("dataset").locator(".sp-facts > span:nth-child(2)").first.wait_for()
    captions = visit.results("dataset").locator(".sp-words").all_inner_texts()
    assert len(captions) == 24
    assert sum("red coat" in caption for caption in captions[:4]) >= 3, captions[:4]


def test_the_dataset_is_searched_by_a_picture_and_filtered_by_split(visit: Visit, lake: Lake, tmp_path: Path) -> None:
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    visit.tab("Dataset")
    first = visit.results("dataset").locator(".sp-card").first
    caption = first.locator(".sp-words").inner_text()
    data = visit.page.request.get(f"{visit.address}/{first.locator('img').get_attribute('src')}").body()
    (tmp_path / "known.jpg").write_bytes(data)
    visit.upload("dataset-picture", tmp_path / "known.jpg")
    first.get_by_text("1.000").wait_for()
    assert first.locator(".sp-words").inner_text() == caption
    assert visit.value("dataset-query") == ""
    visit.page.locator("#dataset-split").get_by_text("test").click()
    wait_until(
        lambda: set(visit.results("dataset").locator(".sp-facts > span:first-child").all_inner_texts()) == {"test"},
        "pictures of the test split",
    )
    visit.page.locator("#dataset-split").get_by_text("all").click()
    visit.page.locator("#dataset-picture").get_by_role("button", name="Remove").click()


def test_a_hostile_caption_is_text(visit: Visit) -> None:
    visit.tab("Dataset")
    visit.results("dataset").get_by_text("1 to 24 of").wait_for()
    card = visit.results("dataset").locator(".sp-card").first
    assert card.locator(".sp-words").inner_text() == HOSTILE
    assert HOSTILE in card.locator(".sp-muted").last.inner_text()
    assert card.locator("img").count() == 1
    assert visit.page.title() == "demo · sp-data"


def test_dropped_pictures_have_reasons(visit: Visit, lake: Lake) -> None:
    visit.tab("Dataset")
    visit.page.locator("#dataset-what").get_by_text("dropped").click()
    curated = manifests.latest(lake, "curate")
    assert curated is not None
    for reason in curated.counts.dropped:
        visit.results("dataset").get_by_text(f"curate: {reason}").first.wait_for()
    visit.page.locator("#dataset-what").get_by_text("kept").click()
    visit.results("dataset").get_by_text("1 to 24 of").wait_for()


def test_a_picture_of_the_dataset_is_taken_to_another_tab(visit: Visit) -> None:
    visit.tab("Dataset")
    card = visit.results("dataset").locator(".sp-card").nth(1)
    card.get_by_role("button", name="Vary").click()
    visit.page.locator("#variation-picture img").wait_for()
    assert visit.page.get_by_role("tab", name="Variation").get_attribute("aria-selected") == "true"


def test_another_checkpoint_is_chosen_and_one_that_vanished_is_a_sentence(visit: Visit, lake: Lake) -> None:
    visit.tab("Runs")
    visit.choose("runs-unet1", "step 8,")
    visit.tab("Dream")
    visit.results("dream").wait_for()
    visit.page.get_by_text("unet 1").locator("visible=true", has_text="step 8").first.wait_for()
    visit.fill("dream-prompts", "a kid in a lime coat")
    visit.fill("dream-pictures", 1)
    visit.draw("dream")
    wait_until(lambda: "lime" in visit.results("dream").inner_text(), "the picture")
    (card,) = visit.cards("dream", 1)
    origin = read_origin(visit.download(card), "downloaded")
    assert origin["decoder"][0]["step"] == 8

    run = origin["decoder"][0]["run"]
    folder = Path(lake.full(f"runs/{run}/checkpoints/step-00000008"))
    shutil.move(folder, folder.with_name("away"))
    visit.draw("dream")
    visit.results("dream").get_by_text("step-00000008").wait_for()
    assert visit.results("dream").locator(".sp-bad").inner_text().startswith("No checkpoint")
    shutil.move(folder.with_name("away"), folder)
    visit.tab("Runs")
    visit.choose("runs-unet1", "the best")


def test_cancel_ends_a_drawing_within_a_step(visit: Visit) -> None:
    visit.tab("Dream")
    visit.fill("dream-prompts", "a kid in a pink coat")
    visit.fill("dream-pictures", 8)
    visit.fill("dream-steps", 100)
    visit.draw("dream")
    visit.results("dream").get_by_text("step 1").first.wait_for()
    pressed = time.monotonic()
    visit.page.locator("#dream-cancel").click()
    visit.results("dream").get_by_text("Cancelled at step").wait_for()
    assert time.monotonic() - pressed < 10
    assert "of 204" in visit.results("dream").inner_text()
    visit.fill("dream-steps", FAST)
    visit.fill("dream-pictures", 1)


def test_a_visitor_waits_for_another_and_draws_once_that_one_has_left(
    browser: Browser, address: str, visit: Visit
) -> None:
    other = Visit(browser, address)
    other.page.get_by_role("button", name="Finer settings").locator("visible=true").click()
    other.fill("dream-prompts", "a kid in a purple coat")
    other.fill("dream-pictures", 8)
    other.fill("dream-steps", 100)
    other.draw("dream")
    other.results("dream").get_by_text("step 1").first.wait_for()
    visit.tab("Dream")
    visit.fill("dream-prompts", "a kid in a yellow coat")
    visit.draw("dream")
    visit.results("dream").get_by_text("1 drawing before yours").wait_for()
    other.close()
    wait_until(lambda: "yellow" in visit.results("dream").inner_text(), "the picture")


def test_two_tabs_of_one_visitor_wait_for_each_other(browser: Browser, address: str, visit: Visit) -> None:
    visit.tab("Dream")
    visit.fill("dream-prompts", "a kid in a black coat")
    visit.fill("dream-pictures", 8)
    visit.fill("dream-steps", 100)
    visit.draw("dream")
    visit.results("dream").get_by_text("step 1").first.wait_for()
    other = Visit(browser, address, context=visit.context)
    other.fill("dream-prompts", "a kid in a white coat")
    other.fill("dream-pictures", 1)
    other.draw("dream")
    other.results("dream").get_by_text("1 drawing before yours").wait_for()
    other.page.locator("#dream-cancel").click()
    other.results("dream").get_by_text("Cancelled.").wait_for()
    assert visit.results("dream").get_by_text("Drawing 8 pictures").count() == 1, "the other tab's is left alone"
    other.draw("dream")
    other.results("dream").get_by_text("1 drawing before yours").wait_for()
    visit.page.locator("#dream-cancel").click()
    visit.results("dream").get_by_text("Cancelled at step").wait_for()
    assert "white" in other.cards("dream", 1)[0].inner_text()
    other.page.close()
    visit.fill("dream-steps", FAST)
    visit.fill("dream-pictures", 1)


@pytest.mark.parametrize("sent", [None, "many", 1e9, -1, [], {}, True])
def test_a_slider_without_a_number_is_a_sentence(visit: Visit, sent: Any) -> None:
    config = visit.page.request.get(f"{visit.address}/config").json()
    by_id = {one["id"]: one["props"] for one in config["components"]}
    (draw,) = (number for number, props in by_id.items() if props.get("elem_id") == "dream-draw")
    (event,) = (one for one in config["dependencies"] if [draw, "click"] in one["targets"])
    given = {"dream-prompts": "a kid", "dream-pictures": sent}
    data = [given.get(by_id[number].get("elem_id"), by_id[number].get("value")) for number in event["inputs"]]
    session = f"slider{sent!r:.3}"
    body = {"data": data, "fn_index": event["id"], "session_hash": session}
    assert visit.page.request.post(f"{visit.address}/gradio_api/queue/join", data=body).status == 200
    said = visit.page.request.get(f"{visit.address}/gradio_api/queue/data?session_hash={session}").text()
    assert "Pictures of each: expected a number from 1 to 8." in said, said


def test_the_page_leads_to_no_other_address(visit: Visit) -> None:
    for path in ("http://evil.example/a.png", "https://evil.example", "//evil.example/a.png"):
        answer = visit.page.request.get(f"{visit.address}/gradio_api/file={path}", max_redirects=0)
        assert (answer.status, answer.headers.get("location")) == (404, None)


def test_the_lake_is_served_to_be_read(visit: Visit, lake: Lake) -> None:
    (name, *_) = [path for path in lake.list("generated") if path.endswith(".png")]
    answer = visit.page.request.get(f"{visit.address}/lake/{name}")
    assert (answer.status, answer.body()) == (200, lake.read_bytes(name))
    lake.write_bytes("reports/hostile.html", b"<title>a report</title><script>document.title = 'owned'</script>")
    page = visit.context.new_page()
    page.goto(f"{visit.address}/lake/reports/hostile.html")
    assert page.title() == "a report"
    page.close()
    for path in ("lake/generated/..%2frecipe.json", "lake/reports/%2e%2e%2frecipe.json", "lake/generated/recipe.json"):
        assert visit.page.request.get(f"{visit.address}/{path}").status == 404


def test_files_of_the_machine_and_addresses_are_no_uploads(visit: Visit) -> None:
    config = visit.page.request.get(f"{visit.address}/config").json()
    (picture,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == "inpaint-picture")
    (event,) = (one["id"] for one in config["dependencies"] if [picture, "change"] in one["targets"])
    for place in ("/etc/hostname", f"{visit.address}/page.css"):
        session = f"forged{len(place)}"
        file = {"path": place, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file], "fn_index": event, "session_hash": session}
        assert visit.page.request.post(f"{visit.address}/gradio_api/queue/join", data=body).status == 200
        said = visit.page.request.get(f"{visit.address}/gradio_api/queue/data?session_hash={session}").text()
        assert '"success":false' in said, said
        assert "sp-painter" not in said


def test_no_other_origin_was_asked_and_no_script_failed(visit: Visit) -> None:
    """After all of the above."""
    assert len(visit.asked) > 50
    assert visit.outside() == []
    assert visit.errors == []


def test_a_phone_shows_every_tab_without_scrolling_sideways(browser: Browser, address: str) -> None:
    phone = Visit(browser, address, PHONE, has_touch=True, is_mobile=True)
    for tab in ("Dream", "Variation", "Inpaint", "Dataset", "Runs"):
        phone.tab(tab)
        if tab == "Dataset":
            phone.results("dataset").locator(".sp-card").first.wait_for()
        if tab == "Runs":
            phone.page.locator(".sp-table").first.wait_for()
        widths = phone.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths == [390, 390], tab
    phone.close()


def test_the_first_tab_is_used_by_keyboard_alone(browser: Browser, address: str) -> None:
    visit = Visit(browser, address)
    visit.page.get_by_role("tab", name="Dream").focus()
    seen = []
    for _ in range(20):
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.closest('[id^=dream-]')?.id ?? e.innerText ?? '', s.outlineStyle, e.tagName]; })()"
        )
        seen.append(focused[0])
        assert focused[1] != "none", f"focus on {focused} is not visible"
        if focused[0] == "dream-prompts":
            visit.page.keyboard.type("a kid")
        if focused[0] == "dream-draw":
            break
    assert "dream-prompts" in seen and "dream-pictures" in seen and "dream-seed" in seen, seen
    assert visit.value("dream-prompts") == "a kid"
    unnamed = visit.page.evaluate(
        "[...document.querySelectorAll('input, textarea, button, select')].filter(e => e.checkVisibility()"
        " && !e.labels?.length && !e.getAttribute('aria-label') && !e.title && !e.innerText.trim())"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    visit.close()


def test_a_page_with_a_password_asks_for_it_and_ends_while_it_is_open(browser: Browser, lake: Lake) -> None:
    with served(lake, "--auth", "kid:paper:cut") as address:
        visit = Visit(browser, address, http_credentials={"username": "kid", "password": "paper:cut"})
        visit.tab("Runs")
        visit.page.locator(".sp-table").first.wait_for()
        stranger = browser.new_context()
        for path in ("", "config", "lake/reports/verify.html", "page.css"):
            assert stranger.request.get(f"{address}/{path}").status == 401
        stranger.close()
    visit.close()
