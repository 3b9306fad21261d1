"""How a stage tells how far it is, without knowing who looks on: a terminal, a log, or nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage (or a step of it) starts; `total` None when it is not known yet."""

    def advance(self, count: int = 1) -> None:
        """So many more units are done."""


TOLD = {"told": True}
"""`extra` of a log line that a person at a terminal is told too, where bars stand for the rest."""


class Silent:
    """Nobody looks on."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass


SILENT = Silent()
_onlooker: Progress = SILENT


def onlooker() -> Progress:
    """Who looks on in this process: for callers between the command and the library, such as Prefect tasks."""
    return _onlooker


@contextlib.contextmanager
def looking_on(progress: Progress) -> Iterator[None]:
    """Let `progress` look on at everything this process does meanwhile."""
    global _onlooker
    before, _onlooker = _onlooker, progress
    try:
        yield
    finally:
        _onlooker = before
