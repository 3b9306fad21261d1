"""How a stage reports its progress, without knowing who receives it: a terminal, a log, or nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage (or a step of it) starts; `total` is None if it is not known yet."""

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""

    def show(self, title: str, png: bytes) -> None:
        """A picture of what was made so far, for who can look at it; it takes the place of the one before."""


SHOWN = {"shown": True}
"""`extra` of a log line that a terminal shows too; there, bars replace the other lines."""


class Silent:
    """Reports to nobody."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass

    def show(self, title: str, png: bytes) -> None:
        pass


SILENT = Silent()
_onlooker: Progress = SILENT


def onlooker() -> Progress:
    """Who receives this process's progress: for callers between the command and the library, such as Prefect tasks."""
    return _onlooker


@contextlib.contextmanager
def looking_on(progress: Progress) -> Iterator[None]:
    """Report the progress of this process to `progress` within the context."""
    global _onlooker
    before, _onlooker = _onlooker, progress
    try:
        yield
    finally:
        _onlooker = before
