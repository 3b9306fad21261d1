"""What every stage gives back, and what it records of the libraries that did the work."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from sp_data.manifest import Manifest

State = Literal["done", "unchanged"]

VERSION_OF = {
    "scrape": 2,
    "curate": 3,
    "shard": 2,
    "embed": 1,
    "reorder": 1,
    "verify": 1,
    "prior": 1,
    "decoder": 1,
    "judge": 1,
}
"""Stage -> its version: raised when its output changes for equal inputs, which makes what was made before stale."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look, when someone asks for a verification."""

    deep: bool = False
    """Read every byte, and embed every picture again unless `reembed` says how many."""
    reembed: int | None = None
    """How many pictures to embed again; None: as the recipe says."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage's manifest, and whether it had to work for it."""

    manifest: Manifest
    state: State


def library_versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, with Python's own and sp-data's. Raises PackageNotFoundError."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("sp-data", *packages)}
