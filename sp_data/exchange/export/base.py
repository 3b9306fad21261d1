"""What an export form has to do: write one shard after the other, then what is about all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sp_data.exchange.export.live_shard import LiveShard


@dataclass(frozen=True, slots=True)
class Written:
    """A shard as it was exported."""

    number: int
    name: str
    split: str
    num_samples: int
    dropped: dict[str, int]


class Writer(Protocol):
    """Writes one shard; called from several threads, or on other machines, so it holds plain values only."""

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        """Write one shard's live samples. `folder` is what is being made, `work` a fresh one that goes afterwards."""


class Form(Protocol):
    """How an export looks. `finish` is called once, after all shards were written."""

    @property
    def writer(self) -> Writer: ...

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        """Write what is about all shards; `folder` will be renamed to `target`. Gives what to note in the mark."""
