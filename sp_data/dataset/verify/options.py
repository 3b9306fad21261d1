"""How much a verification checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How much to check when someone asks for a verification."""

    deep: bool = False
    """Read every byte, and embed every picture again unless `reembed` says how many."""
    reembed: int | None = None
    """How many pictures to embed again; None: as the recipe says."""
