"""Find pictures in the shards by their title or their bytes: alive, with a tombstone, or failed.

FoundSample('000070042', 7, 'File:Kenny.png', sha1='5f0c…', split='train', in_tar=True, alive=True)
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
class FoundSample:
    """A sample of a shard. `alive`: it is in the tar and has no tombstone."""

    key: str
    shard: int
    title: str
    sha1: str
    split: str
    in_tar: bool
    """False where img2dataset failed on it."""
    alive: bool


def find_samples(lake: Lake, manifest: Manifest, titles: Iterable[str], sha1s: Iterable[str]) -> Iterator[FoundSample]:
    """Every sample of these titles or bytes in the shards of a shard manifest or a dataset manifest, in key order.

    A shard whose parquet is gone is skipped. Raises CorruptFile.
    """
    layout = KeyLayout.parse(manifest.details["layout"])
    tombstones = frozenset(manifest.details["tombstones"])
    wanted = pa.array(sorted(titles), pa.string()), pa.array(sorted(filter(None, sha1s)), pa.string())
    for shard in manifest.details["shards"]:
        path = f"shards/{layout.shard_name(shard['number'])}.parquet"
        for row in _rows(lake, path, lambda table: _is_any_of(table, *wanted)):
            in_tar = row["status"] == SUCCESS
            alive = in_tar and row["key"] not in tombstones
            yield FoundSample(
                row["key"], shard["number"], row["title"], row["sha1"], shard["split"], in_tar=in_tar, alive=alive
            )


def holds_forgotten(lake: Lake, manifest: Manifest, forgotten: Forgotten) -> bool:
    """Whether the tars of a manifest hold a forgotten picture, alive or not."""
    if not forgotten.entries:
        return False
    return any(sample.in_tar for sample in find_samples(lake, manifest, forgotten.titles, forgotten.sha1s))


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
