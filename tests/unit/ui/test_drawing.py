"""A drawing as a stream of moments: how it goes on, ends, fails and is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sp_data.errors import LakeFull, SpDataError, StageError
from sp_data.generation.picture import GeneratedPicture
from sp_data.lake import Lake
from sp_data.recipe import load_recipe
from sp_data.ui import drawing, markup
from sp_data.ui.drawing import Job, Moment, draw
from sp_data.ui.state import Nearest, PageState

STEPS = 5


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageState:
    """Without models: its generator is whatever a job ignores."""
    monkeypatch.setattr(drawing, "MOMENT_S", 0)
    state = PageState(load_recipe("demo"), Lake(str(tmp_path / "lake"), "kids"), tmp_path)
    monkeypatch.setattr(state, "generator", lambda _prior, _unets, on_load: on_load())
    monkeypatch.setattr(state, "nearest", lambda _embedding: Nearest(why_not="no dataset"))
    return state


def _made(seed: int) -> GeneratedPicture:
    origin = {"kind": "dream", "prompt": "a kid", "seed": seed, "decoder": []}
    return GeneratedPicture(Image.new("RGB", (8, 8)), origin, {"clip": 0.3}, np.ones(4, np.float32))


def _job(pictures: Any, count: int = 2) -> Job:
    return Job("best", ("best",), count, pictures)


def _two(_generator: Any, on_step: Any) -> Iterator[GeneratedPicture]:
    for seed in range(2):
        for done in range(STEPS):
            on_step(done, STEPS)
        yield _made(seed)


def test_a_drawing_waits_loads_draws_and_keeps_each_picture(state: PageState) -> None:
    moments = list(draw(state, "visitor", _job(_two)))
    phases = list(dict.fromkeys(moment.phase for moment in moments))
    assert phases == sorted(phases, key=["waiting", "loading", "drawing", "done"].index)
    last = moments[-1]
    assert (last.phase, len(last.pictures), last.step, last.num_steps) == ("done", 2, STEPS - 1, STEPS)
    for picture in last.pictures:
        assert state.lake.read_bytes(f"generated/{picture.name}") == picture.made.png()


def test_cancel_ends_it_at_the_next_step_and_keeps_what_is_drawn(state: PageState) -> None:
    stepped = []

    def slow(_generator: Any, on_step: Any) -> Iterator[GeneratedPicture]:
        yield _made(0)
        for done in range(1000):
            if done == 3:
                state.cancel("visitor")
            on_step(done, 1000)
            stepped.append(done)

    *_, last = draw(state, "visitor", _job(slow))
    assert (last.phase, len(last.pictures), stepped) == ("cancelled", 1, [0, 1, 2])
    assert "1 of 2 pictures were drawn" in markup.status(last)


def test_a_visitor_who_leaves_ends_the_drawing(state: PageState) -> None:
    ended = threading.Event()

    def endless(_generator: Any, on_step: Any) -> Iterator[GeneratedPicture]:
        try:
            while True:
                on_step(0, 1)
        finally:
            ended.set()
        yield _made(0)

    moments = draw(state, "visitor", _job(endless))
    while next(moments).phase != "drawing":
        pass
    moments.close()  # type: ignore[attr-defined]
    assert ended.wait(10)


def test_who_begins_anew_gives_up_what_was_being_drawn(state: PageState) -> None:
    first = state.begin("visitor")
    second = state.begin("visitor")
    assert first.is_set() and not second.is_set()
    state.end("visitor", first)
    assert not second.is_set()
    state.close()
    assert second.is_set()


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StageError("one picture does not fit into the free memory"), "One picture does not fit"),
        (LakeFull("no space left for generated/"), "No space left"),
        (FileNotFoundError(2, "No such file", "weights.safetensors"), "weights.safetensors"),
        (Broken("CUDA error: device-side assert <b>\nsecond line"), "Broken CUDA error: device-side assert &lt;b&gt;;"),
    ],
)
def test_a_failure_is_one_sentence(state: PageState, error: Exception, words: str) -> None:
    def fails(_generator: Any, on_step: Any) -> Iterator[GeneratedPicture]:
        yield _made(0)
        raise error

    *_, last = draw(state, "visitor", _job(fails))
    assert (last.phase, len(last.pictures)) == ("failed", 1)
    shown = markup.status(last)
    assert words in shown and "Traceback" not in shown and "second line" not in shown
    # Whoever comes next has the turn.
    assert list(draw(state, "visitor", _job(_two)))[-1].phase == "done"


def test_memory_that_a_training_has_taken_is_a_sentence(state: PageState, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sp_data.generation import models

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.undo()
    monkeypatch.setattr(models, "find_checkpoints", lambda *_: ())
    monkeypatch.setattr(models, "load_models", full)
    with pytest.raises(SpDataError, match="until a training on it has ended"):
        PageState(state.recipe, state.lake, state.folder).generator("best", (), lambda: None)


def test_a_line_tells_what_happens() -> None:
    def line(**changes: Any) -> str:
        return markup.status(Moment(**{"phase": "drawing", "num_pictures": 4, **changes}))

    assert "Waiting: 2 drawings before yours." in line(phase="waiting", num_before=2)
    assert "Drawing 4 pictures: step 7 of 24" in line(step=7, num_steps=24)
    assert '<progress max="24" value="7"' in line(step=7, num_steps=24)
    assert "Cancelled at step 7 of 24." in line(phase="cancelled", step=7, num_steps=24)
