"""The live samples of a verified shard: those that have an embedding and no tombstone.

    LiveShard(name='00007', split='train', keys=['000070042', ...], indices=[42, ...], rows={'000070042': {...}}, ...)

Every export reads its shards here, so that samples with a tombstone are left out in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.arrays import map_array
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.stage import read_rows
from sp_data.dataset.shards.tars import SUCCESS, TarSample, read_tar
from sp_data.errors import CorruptFile
from sp_data.keys import KeyLayout
from sp_data.lake import Lake

ATTRIBUTION = ("title", "page", "revision", "licence", "uploader", "url", "sha1")
"""Who made a picture and where it is from: part of every export."""
TOMBSTONE = "tombstone"
NO_EMBEDDING = "no embedding"


@dataclass(frozen=True, slots=True)
class LiveShard:
    """One shard of a dataset manifest, opened. `keys`, `indices` and `rows` are in key order."""

    number: int
    name: str
    split: str
    num_rows: int
    keys: list[str]
    indices: npt.NDArray[np.int64]
    """Index of each key within the shard: its row of the embeddings."""
    rows: dict[str, dict[str, Any]]
    """Key -> its row of the shard's parquet: caption, licence, page, ..."""
    tar: Path
    embeddings: dict[str, npt.NDArray[np.floating[Any]]]
    """Kind -> `(num_rows, dim)`, memory-mapped, zero where no picture is."""
    dropped: dict[str, int]
    """Reason why samples of the tar are not alive -> how many."""

    @property
    def is_whole(self) -> bool:
        """Whether every sample of the tar is alive."""
        return not self.dropped

    def samples(self) -> Iterator[TarSample]:
        """(key, extension -> bytes) of each live sample, in the tar's order. Raises CorruptFile."""
        for key, parts in read_tar(self.tar):
            if key in self.rows:
                yield key, parts

    def attribution(self, key: str) -> dict[str, Any]:
        return {name: self.rows[key].get(name) for name in ATTRIBUTION}


@contextlib.contextmanager
def open_shard(
    shard: dict[str, Any], layout: KeyLayout, dim: int, tombstones: frozenset[str], lake: Lake
) -> Iterator[LiveShard]:
    """Open a shard of the dataset manifest that has embeddings of `dim` numbers, without the keys in `tombstones`.

    Raises CorruptFile if a file contradicts the manifest.
    """
    shape, verify = (shard["num_rows"], dim), lake.command("verify")
    with contextlib.ExitStack() as files:
        tar = files.enter_context(lake.local(shard["tar"]["path"]))
        embeddings = {
            kind: _mapped(files.enter_context(lake.local(shard[kind]["path"])), shard[kind]["path"], shape, verify)
            for kind in EMBEDDING_KINDS
        }
        has_row = np.logical_and.reduce([array.any(axis=1) for array in embeddings.values()])
        rows: dict[str, dict[str, Any]] = {}
        dropped = dict.fromkeys((TOMBSTONE, NO_EMBEDDING), 0)
        for row in read_rows(lake, shard["parquet"]["path"]):
            number, index = layout.split(row["key"])
            if number != shard["number"] or index >= shard["num_rows"]:
                raise CorruptFile(f"{shard['parquet']['path']}: key {row['key']} is of another shard; run {verify}")
            if row["status"] != SUCCESS:
                continue
            if row["key"] in tombstones:
                dropped[TOMBSTONE] += 1
            elif not has_row[index]:
                dropped[NO_EMBEDDING] += 1
            else:
                rows[row["key"]] = row
        keys = sorted(rows)
        yield LiveShard(
            number=shard["number"],
            name=layout.shard_name(shard["number"]),
            split=shard["split"],
            num_rows=shard["num_rows"],
            keys=keys,
            indices=np.array([layout.split(key)[1] for key in keys], dtype=np.int64),
            rows=rows,
            tar=tar,
            embeddings=embeddings,
            dropped={reason: count for reason, count in dropped.items() if count},
        )


def _mapped(path: Path, lake_path: str, shape: tuple[int, int], verify: str) -> npt.NDArray[np.floating[Any]]:
    rows: npt.NDArray[np.floating[Any]] = map_array(path, lake_path, f"run {verify}")
    if rows.shape != shape:
        raise CorruptFile(f"{lake_path} holds {rows.shape}, the dataset manifest says {shape}; run {verify}")
    return rows
