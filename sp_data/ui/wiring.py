"""What the tabs have in common: which checkpoints draw, and how a drawing's events reach the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from sp_data.errors import SpDataError, UsageError
from sp_data.foreign_text import html_text
from sp_data.ui import markup
from sp_data.ui.checkpoints import (
    BEST,
    Abilities,
    KnownCheckpoint,
    abilities,
    best_of_finished,
    chosen,
    known_checkpoints,
)
from sp_data.ui.drawing import Job, Moment, draw
from sp_data.ui.fields import whole_number
from sp_data.ui.settings import Settings
from sp_data.ui.state import PageState

MAX_UNETS = 4
NETWORKS = ("prior", *(f"unet {number}" for number in range(1, MAX_UNETS + 1)))
MAX_DRAWN = 256
"""Pictures of one drawing, those that best-of rejects included."""
EMPTY = (
    '<div class="sp-empty"><p>The pictures appear here.</p>'
    "<p>The first drawing loads the models, which takes some ten seconds; the next ones begin at once.</p></div>"
)
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event: the page shows progress itself, and no other program is to call it."""

Values = dict[Component, Any]


@dataclass(slots=True)
class Page:
    """The parts of the page that several tabs refer to."""

    state: PageState
    checkpoints: list[KnownCheckpoint]
    """When the page was started."""
    able: Abilities
    choices: dict[str, gr.Dropdown]
    """Network -> which checkpoint of it draws. Shown under Runs."""
    picked: gr.Textbox
    """Hidden: the tab and the picture of a 'Vary' or 'Repaint' that was pressed."""
    tabs: gr.Tabs
    drawn_by: list[gr.HTML] = field(default_factory=list)
    """A line a tab that names the checkpoints."""
    settings: list[Settings] = field(default_factory=list)

    def chosen_from(self, values: Values) -> tuple[str, tuple[str, ...]]:
        """The prior's checkpoint and the unets': folders, or best."""
        prior, *unets = (str(values[dropdown] or BEST) for dropdown in self.choices.values())
        return prior, tuple(unets)

    def choice_updates(self, choices: Sequence[str]) -> list[Any]:
        """For the lines and the scales of all tabs, after checkpoints were chosen."""
        checkpoints = known_checkpoints(self.state.lake)
        by_network = chosen(checkpoints, choices, best_of_finished(self.state.lake))
        able = abilities(by_network)
        line = drawn_by_line(by_network, self.state)
        return [line] * len(self.drawn_by) + [update for one in self.settings for update in one.updates(able)]

    @property
    def choice_outputs(self) -> list[Component]:
        return [*self.drawn_by, *(scale for one in self.settings for scale in one.scales)]


def drawn_by_line(by_network: dict[str, KnownCheckpoint], state: PageState) -> str:
    """HTML that names the checkpoints which draw."""
    if "prior" not in by_network or "unet 1" not in by_network:
        return markup.notice(
            f"Dataset {state.lake.dataset} has no trained models yet: {state.lake.command('run')} trains them, and "
            "then this page draws"
        )
    names = " · ".join(html_text(f"{network} {_short(checkpoint)}") for network, checkpoint in by_network.items())
    return f'<p class="sp-muted">Drawn by {names}. Choose others under Runs.</p>'


def _short(checkpoint: KnownCheckpoint) -> str:
    """'c9ef39e2 step 800', 'weights/laion-prior'"""
    return str(checkpoint) if checkpoint.is_adopted else f"{checkpoint.run.rpartition('-')[2]} step {checkpoint.step:,}"


def html(value: str = "", classes: str = "") -> gr.HTML:
    """HTML as it is, without Gradio's styles and scripts for it."""
    return gr.HTML(value, elem_classes=["sp-html", classes], apply_default_css=False, js_on_load=None)


def drawing_column() -> tuple[gr.HTML, gr.HTML]:
    """The status and the pictures of a tab."""
    return html("", "sp-status-box"), html(EMPTY, "sp-results")


def wire_drawing(
    page: Page,
    settings: Settings,
    start: Sequence[Any],
    outputs: tuple[gr.HTML, gr.HTML],
    inputs: set[Component],
    job_of: Callable[[Values], tuple[Job, list[str]]],
) -> None:
    """Draw on any event of `start`. `job_of` gives what to draw, and notes; what it raises is shown as a sentence."""
    status, cards = outputs
    cancel = settings.cancel

    def drawn(values: Values, request: gr.Request) -> Iterator[dict[Component, Any]]:
        session = str(request.session_hash)
        try:
            job, notes = job_of(values)
        except SpDataError as error:
            yield {status: markup.notice(str(error), "bad")}
            return
        yield {status: markup.status(Moment("waiting"), notes), cancel: gr.update(interactive=True)}
        shown = 0
        for moment in draw(page.state, session, job):
            update: dict[Component, Any] = {status: markup.status(moment, notes)}
            if len(moment.pictures) != shown:
                shown = len(moment.pictures)
                update[cards] = markup.drawn_cards(moment.pictures, settings.tab, page.state.recipe)
            if moment.is_end:
                update[cancel] = gr.update(interactive=False)
            yield update

    def stopped(request: gr.Request) -> None:
        page.state.cancel(str(request.session_hash))

    gr.on(
        list(start),
        drawn,
        inputs | settings.inputs | set(page.choices.values()),
        [status, cards, cancel],
        # Drawings wait in a line of our own (turns.py), which says how many come first and can be left.
        concurrency_limit=None,
        trigger_mode="once",
        **HIDDEN,
    )
    cancel.click(stopped, None, None, queue=False, **HIDDEN)


def check_count(num_pictures: int, settings: Settings, values: Values) -> None:
    """Raises UsageError if more is asked for than one drawing may take."""
    total = num_pictures * whole_number(values, settings.best_of)
    if total > MAX_DRAWN:
        raise UsageError(
            f"{total} pictures to draw, at most {MAX_DRAWN} at a time: ask for fewer, or for a smaller best-of"
        )
