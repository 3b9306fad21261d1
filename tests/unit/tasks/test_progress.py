"""The progress bar in the Prefect UI never stops the work."""

from __future__ import annotations

import logging
from uuid import uuid4

import httpx
import pytest

from sp_data.runtime.progress import Silent
from tasks import progress
from tasks.progress import ProgressArtifact


class Counting(Silent):
    num_done = 0

    def advance(self, count: int = 1) -> None:
        self.num_done += count


def test_it_shows_the_share_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_, **__: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", lambda _, progress: shown.append(progress))
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    bar = ProgressArtifact("demo-prior", Silent())
    bar.begin("prior", 4, "steps")
    for _ in range(4):
        bar.advance()
    assert shown == [25.0, 50.0, 75.0, 100.0]


def test_a_lost_server_is_reported_once_and_does_not_stop_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_, **__: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", refuse)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    counting = Counting()
    bar = ProgressArtifact("demo-prior", counting)
    with caplog.at_level(logging.WARNING, "sp_data"):
        bar.begin("prior", 3, "steps")
        for _ in range(3):
            bar.advance()
    assert counting.num_done == 3
    assert caplog.text.count("stopped: the Prefect server") == 1
