"""A drawing as the page sees it: a stream of what has happened, from the waiting line to the last picture.

    for moment in draw(state, session, job):
        moment.phase      waiting -> loading -> drawing -> done, cancelled or failed
        moment.pictures   those that are drawn so far, each kept in the lake

It is drawn in a thread of its own. Gradio would stop a function only where it yields; here each step asks whether the
visitor has cancelled.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sp_data.errors import SpDataError
from sp_data.ui.state import Nearest, PageState

if TYPE_CHECKING:
    from sp_data.generation.generator import ImageGenerator, OnStep
    from sp_data.generation.picture import GeneratedPicture

log = logging.getLogger(__name__)

Phase = Literal["waiting", "loading", "drawing", "done", "cancelled", "failed"]
ENDS: tuple[Phase, ...] = ("done", "cancelled", "failed")
MOMENT_S = 0.15
"""The page is told of progress so often."""


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """A picture that is kept in the lake."""

    made: GeneratedPicture
    nearest: Nearest

    @property
    def name(self) -> str:
        return self.made.file_name


@dataclass(frozen=True, slots=True)
class Moment:
    phase: Phase
    num_before: int = 0
    """Drawings that come first, while it waits."""
    step: int = 0
    num_steps: int = 0
    """Of the pictures that are drawn together."""
    pictures: tuple[DrawnPicture, ...] = ()
    num_pictures: int = 0
    """That were asked for."""
    sentence: str = ""
    """Why it failed."""

    @property
    def is_end(self) -> bool:
        return self.phase in ENDS


@dataclass(frozen=True, slots=True)
class Job:
    """What to draw, and with what."""

    prior: str
    unets: tuple[str, ...]
    """Folders of checkpoints, or best."""
    num_pictures: int
    pictures: Callable[[ImageGenerator, OnStep], Iterator[GeneratedPicture]]


class Cancelled(Exception):
    """Ends a drawing at its next step."""


def draw(state: PageState, session: str, job: Job) -> Iterator[Moment]:
    """Draw, and tell what happens. The end of the iteration, or of the iterator, ends the drawing."""
    cancelled = state.begin(session)
    moments: queue.SimpleQueue[Moment] = queue.SimpleQueue()
    thread = threading.Thread(target=_draw, args=(state, job, cancelled, moments), daemon=True, name="drawing")
    thread.start()
    try:
        while True:
            yield (moment := _newest(moments))
            if moment.is_end:
                return
    finally:
        state.end(session, cancelled)


def _newest(moments: queue.SimpleQueue[Moment]) -> Moment:
    """What has happened by now, after a moment."""
    moment = moments.get()
    deadline = time.monotonic() + MOMENT_S
    while not moment.is_end:
        try:
            moment = moments.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
    return moment


def _draw(state: PageState, job: Job, cancelled: threading.Event, moments: queue.SimpleQueue[Moment]) -> None:
    moment = Moment("waiting", num_pictures=job.num_pictures)

    def tell(**changes: object) -> None:
        nonlocal moment
        moment = replace(moment, **changes)  # type: ignore[arg-type]
        moments.put(moment)

    def check() -> None:
        if cancelled.is_set():
            raise Cancelled

    def on_step(done: int, total: int) -> None:
        check()
        tell(step=done, num_steps=total)

    def on_load() -> None:
        check()
        tell(phase="loading")

    try:
        with state.turns.turn(check, lambda num_before: tell(num_before=num_before)):
            check()
            generator = state.generator(job.prior, job.unets, on_load)
            check()
            tell(phase="drawing")
            # Imported by now.
            from sp_data.generation.files import PictureFolder

            folder = PictureFolder(state.lake)
            for written in folder.write_each(job.pictures(generator, on_step)):
                nearest = Nearest() if written.made.embedding is None else state.nearest(written.made.embedding)
                tell(pictures=(*moment.pictures, DrawnPicture(written.made, nearest)))
        tell(phase="done")
    except Cancelled:
        tell(phase="cancelled")
    except SpDataError as error:
        tell(phase="failed", sentence=str(error))
    except OSError as error:
        log.exception("drawing failed")
        tell(phase="failed", sentence=f"{error.strerror or error} ({error.filename or 'of the system'})")
    except Exception as error:  # The visitor waits for an answer; the terminal shows the rest.
        log.exception("drawing failed")
        first_line = (str(error).splitlines() or [""])[0][:200]
        tell(phase="failed", sentence=f"unexpected: {type(error).__name__} {first_line}; the terminal says more")
