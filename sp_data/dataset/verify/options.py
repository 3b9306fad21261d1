"""What verification checks, and its thresholds, when someone asks for one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How much a verification that someone asks for looks at."""

    deep: bool = False
    """Read every byte, and embed every picture again unless `reembed` says how many."""
    reembed: int | None = None
    """How many pictures to embed again; None: as the recipe says."""
