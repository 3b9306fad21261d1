"""Where pictures lie in the shards, by their title or their bytes: alive, with a tombstone, or failed.

Sighting(key='000070042', title='File:Kenny.png', sha1='5f0c…', split='train', alive=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sp_data.dataset.shards.tars import SUCCESS
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.parquet import read_table
from sp_data.wiki.forgotten import Forgotten

COLUMNS = ["key", "title", "sha1", "status"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A sample of a shard. `alive`: it is there, and has no tombstone."""

    key: str
    shard: int
    title: str
    sha1: str
    split: str
    there: bool
    """Whether its bytes are in the tar: img2dataset did not fail on it."""
    alive: bool


def sightings(lake: Lake, made: Manifest, titles: Iterable[str], sha1s: Iterable[str]) -> Iterator[Sighting]:
    """Every sample of these titles or bytes in the shards of a shard manifest or a dataset manifest, by key.

    A shard whose parquet is gone is passed over. Raises CorruptFile.
    """
    layout = KeyLayout.parse(made.details["layout"])
    dead = frozenset(made.details["tombstones"])
    wanted = pa.array(sorted(titles), pa.string()), pa.array(sorted(filter(None, sha1s)), pa.string())
    for listed in made.details["shards"]:
        path = f"shards/{layout.shard_name(listed['number'])}.parquet"
        for row in _rows(lake, path, lambda table: _is_any_of(table, *wanted)):
            there = row["status"] == SUCCESS
            alive = there and row["key"] not in dead
            yield Sighting(
                row["key"], listed["number"], row["title"], row["sha1"], listed["split"], there=there, alive=alive
            )


def holds_forgotten(lake: Lake, made: Manifest, forgotten: Forgotten) -> bool:
    """Whether the tars of a manifest hold a forgotten picture, alive or not."""
    if not forgotten.entries:
        return False
    return any(one.there for one in sightings(lake, made, forgotten.titles, forgotten.sha1s))


def _rows(lake: Lake, path: str, choose: Callable[[pa.Table], pa.Array]) -> list[dict[str, Any]]:
    try:
        with lake.local(path) as local:
            table = read_table(local, lake.full(path), COLUMNS)
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = table.filter(choose(table)).to_pylist()
    return rows


def _is_any_of(table: pa.Table, titles: pa.Array, sha1s: pa.Array) -> pa.Array:
    return pc.or_(pc.is_in(table["title"], titles), pc.is_in(table["sha1"], sha1s))
