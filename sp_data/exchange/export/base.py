"""What an export form has to do: write one shard after the other, then the files that describe all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sp_data.exchange.export.live_shard import LiveShard


@dataclass(frozen=True, slots=True)
class Written:
    """A shard that was exported."""

    number: int
    name: str
    split: str
    num_samples: int
    dropped: dict[str, int]


class Writer(Protocol):
    """Writes one shard. It is called from several threads or on other machines, so it has plain values only."""

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        """Write the live samples of one shard to `folder`; `work` is an empty folder that is removed after `finish`."""


class Form(Protocol):
    """The form of an export. `finish` is called once, after all shards were written."""

    @property
    def writer(self) -> Writer: ...

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        """Write the files that describe all shards; `folder` will be renamed to `target`. Gives fields for the mark."""
