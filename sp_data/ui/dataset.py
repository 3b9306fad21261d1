"""The tab that shows the dataset: search by words or a picture, leaf through it, see what was dropped and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr
import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.curate.decoding import Refused
from sp_data.dataset.curate.pictures import decode
from sp_data.dataset.curate.tables import read_dropped
from sp_data.errors import SpDataError, UsageError
from sp_data.lake import Lake
from sp_data.runtime.contact_sheet import data_uri, jpeg
from sp_data.ui import markup
from sp_data.ui.pictures import picture_input, uploaded
from sp_data.ui.state import PageState
from sp_data.ui.wiring import HIDDEN, Page, Values, html
from sp_data.wiki.catalogue import OK, catalogue_rows, read_catalogue

A_PAGE = 24
MAX_QUERY = 2_000
THUMB_PX, MAX_THUMB_PIXELS, MAX_THUMB_BYTES = 192, 40_000_000, 50_000_000
EVERY = "all"
LATEST: dict[str, Any] = {**HIDDEN, "trigger_mode": "always_last"}
SPLITS = (EVERY, "train", "val", "test")

What = Literal["kept", "dropped"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A page of pictures."""

    html: str
    first: int
    """Place of its first picture in all of them."""
    count: int
    total: int | None
    """None: there are more than are ever shown."""

    @property
    def line(self) -> str:
        if not self.count:
            return "No pictures."
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.first + 1:,} to {self.first + self.count:,}{of}"


def dataset_tab(page: Page) -> None:
    state = page.state
    with gr.Tab("Dataset", id="dataset") as tab:
        with gr.Row(elem_classes="sp-columns"):
            with gr.Column(scale=2, min_width=320):
                query = gr.Textbox(
                    label="Search by words",
                    max_length=MAX_QUERY,
                    elem_id="dataset-query",
                    placeholder="a red coat",
                    info="Finds what looks so to CLIP, whatever its caption says.",
                )
                search = gr.Button("Search", variant="primary", elem_id="dataset-search")
                picture = picture_input("Or by a picture", "dataset-picture", 160)
                what = gr.Radio(
                    [("kept", "kept"), ("dropped", "dropped")], value="kept", label="Pictures", elem_id="dataset-what"
                )
                split = gr.Radio(list(SPLITS), value=EVERY, label="Split", elem_id="dataset-split")
                reason = gr.Dropdown(
                    [(EVERY, EVERY)], value=EVERY, label="Why dropped", visible=False, elem_id="dataset-reason"
                )
            with gr.Column(scale=5, min_width=320, elem_id="dataset-results"):
                pictures = html('<div class="sp-empty"><p>Opening the dataset…</p></div>', "sp-results")
                with gr.Row(elem_classes="sp-pages"):
                    back = gr.Button("Previous", interactive=False, size="sm", elem_id="dataset-back")
                    where = html("", "sp-where")
                    on = gr.Button("Next", interactive=False, size="sm", elem_id="dataset-next")
        first = gr.State(0)
    outputs = [pictures, where, back, on, first, split, reason]

    def shown(values: Values, start: int) -> dict[Any, Any]:
        is_kept = values[what] == "kept"
        try:
            found = (
                _kept(state, str(values[query] or "").strip(), values[picture], str(values[split]), start)
                if is_kept
                else _dropped(state.lake, str(values[reason] or EVERY), start)
            )
        except SpDataError as error:
            found = Shown(markup.notice(str(error), "bad"), 0, 0, 0)
        reasons = {} if is_kept else _reasons(state.lake)
        choices = [
            (f"{EVERY} ({sum(reasons.values()):,})", EVERY),
            *((f"{name} ({n:,})", name) for name, n in reasons.items()),
        ]
        return {
            pictures: found.html,
            where: f"<p>{found.line}</p>",
            back: gr.update(interactive=start > 0, visible=(found.total or 0) > A_PAGE),
            on: gr.update(interactive=start + found.count < (found.total or 0), visible=(found.total or 0) > A_PAGE),
            first: start,
            split: gr.update(visible=is_kept),
            reason: gr.update(visible=not is_kept, choices=choices),
        }

    inputs: set[Any] = {query, picture, what, split, reason, first}

    def anew(values: Values) -> dict[Any, Any]:
        return shown(values, 0)

    def earlier(values: Values) -> dict[Any, Any]:
        return shown(values, max(0, values[first] - A_PAGE))

    def later(values: Values) -> dict[Any, Any]:
        return shown(values, values[first] + A_PAGE)

    def by_words(values: Values) -> dict[Any, Any]:
        return {**shown({**values, picture: None, what: "kept"}, 0), picture: None, what: "kept"}

    def by_picture(values: Values) -> dict[Any, Any]:
        return {**shown({**values, query: "", what: "kept"}, 0), query: "", what: "kept"}

    # The last of several clicks counts, whatever is still under way.
    gr.on([search.click, query.submit], by_words, inputs, [*outputs, picture, what], **LATEST)
    picture.upload(by_picture, inputs, [*outputs, query, what], **LATEST)
    gr.on([what.input, split.input, reason.input, picture.clear], anew, inputs, outputs, **LATEST)
    back.click(earlier, inputs, outputs, **LATEST)
    on.click(later, inputs, outputs, **LATEST)
    tab.select(anew, inputs, outputs, **LATEST)


def _kept(state: PageState, query: str, picture: str | None, split: str, start: int) -> Shown:
    index = state.index()
    wanted = None if split == EVERY else split
    if picture or query:
        if len(query) > MAX_QUERY:
            raise UsageError(f"{len(query):,} characters to search for, at most {MAX_QUERY:,}")
        clip = state.clip()
        embedding = (
            clip.embed([uploaded(picture).image], [""])[0].astype(np.float32)
            if picture
            else clip.embed_captions([query])
        )
        (neighbours,) = index.nearest(embedding, start + A_PAGE, wanted)
        found = neighbours[start:]
        html = markup.found_cards(found, state.recipe, is_search=True)
        return Shown(html, start, len(found), None)
    numbers = _numbers(state, wanted)
    some = numbers[start : start + A_PAGE]
    found = [index.neighbour(int(number), 0.0) for number in some]
    return Shown(markup.found_cards(found, state.recipe, is_search=False), start, len(found), len(numbers))


def _numbers(state: PageState, split: str | None) -> npt.NDArray[np.int64]:
    """The keys, as numbers, of the pictures that can be found."""
    shards = [numbers for numbers, _ in state.index().rows(split)]
    return np.concatenate(shards) if shards else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class DroppedPicture:
    title: str
    stage: str
    reason: str
    detail: str
    original: str
    """Path in the lake; empty where there is none."""


def dropped_pictures(lake: Lake) -> list[DroppedPicture]:
    """What the scrape refused and what curate dropped, by stage and title."""
    rows: list[DroppedPicture] = []
    if (scraped := manifests.latest(lake, "scrape")) is not None:
        rows += [
            DroppedPicture(row.title, "scrape", row.status, "", "")
            for row in catalogue_rows(read_catalogue(lake, scraped))
            if row.status != OK
        ]
    if (curated := manifests.latest(lake, "curate")) is not None:
        columns = ["title", "reason", "detail", "original"]
        rows += [
            DroppedPicture(row["title"], "curate", row["reason"], row["detail"], row["original"] or "")
            for row in read_dropped(lake, curated, columns).to_pylist()
        ]
    return rows


def _reasons(lake: Lake) -> dict[str, int]:
    return dict(Counter(row.reason for row in dropped_pictures(lake)).most_common())


def _dropped(lake: Lake, reason: str, start: int) -> Shown:
    rows = [row for row in dropped_pictures(lake) if reason in (EVERY, row.reason)]
    some = rows[start : start + A_PAGE]
    cards = [
        markup.dropped_card(_thumbnail(lake, row.original), row.title, f"{row.stage}: {row.reason}", row.detail)
        for row in some
    ]
    return Shown(markup.dropped_cards(cards), start, len(some), len(rows))


def _thumbnail(lake: Lake, path: str) -> str:
    """A small copy as a data URI; empty if it cannot be read, which may be why it was dropped."""
    if not path or (lake.size(path) or MAX_THUMB_BYTES) >= MAX_THUMB_BYTES:
        return ""
    try:
        image, _ = decode(lake.read_bytes(path), MAX_THUMB_PIXELS)
    except (Refused, FileNotFoundError):
        return ""
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.LANCZOS)
    return data_uri(jpeg(image, 80))
