"""How a stage tells how far it is, without knowing who looks on: a terminal, a log, a Prefect task, or nobody."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage (or a step of it) starts; `total` None when it is not known yet."""

    def advance(self, count: int = 1) -> None:
        """So many more units are done."""


class Silent:
    """Nobody looks on."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass


SILENT = Silent()
