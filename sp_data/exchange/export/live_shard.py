"""What of a verified shard is alive: its samples without tombstones and without what has no embedding.

    LiveShard(name='00007', split='train', keys=['000070042', ...], indices=[42, ...], said={'000070042': {...}}, ...)

Everything that leaves the lake (export.py) goes through here, so that a tombstone is left out in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.stage import read_rows
from sp_data.dataset.shards.tars import SUCCESS, TarSample, read_tar
from sp_data.errors import CorruptFile
from sp_data.keys import KeyLayout
from sp_data.lake import Lake

ATTRIBUTION = ("title", "page", "revision", "licence", "uploader", "url", "sha1")
"""Who made a picture and where it is from: travels with every export."""
TOMBSTONE = "tombstone"
NO_EMBEDDING = "no embedding"


@dataclass(frozen=True, slots=True)
class LiveShard:
    """One shard of a dataset manifest, opened. `keys`, `indices` and the rows of `said` are in key order."""

    number: int
    name: str
    split: str
    num_rows: int
    keys: list[str]
    indices: npt.NDArray[np.int64]
    """Of the keys within the shard: rows of the embeddings."""
    said: dict[str, dict[str, Any]]
    """Key -> its row of the shard's parquet: caption, licence, page, ..."""
    tar: Path
    embeddings: dict[str, npt.NDArray[np.floating[Any]]]
    """Kind -> `(num_rows, dim)`, memory-mapped, zero where no picture is."""
    dropped: dict[str, int]
    """Why samples of the tar are not alive: reason -> how many."""

    @property
    def is_whole(self) -> bool:
        """Whether every sample of the tar is alive."""
        return not self.dropped

    def samples(self) -> Iterator[TarSample]:
        """(key, extension -> bytes) of each live sample, in the tar's order. Raises CorruptFile."""
        for key, parts in read_tar(self.tar):
            if key in self.said:
                yield key, parts

    def attribution(self, key: str) -> dict[str, Any]:
        return {name: self.said[key].get(name) for name in ATTRIBUTION}


@contextlib.contextmanager
def open_shard(
    listed: dict[str, Any], layout: KeyLayout, dim: int, dead: frozenset[str], lake: Lake
) -> Iterator[LiveShard]:
    """Open one shard as the dataset manifest lists it, with embeddings of `dim` numbers; `dead` are its tombstones.

    Raises CorruptFile if a file contradicts the manifest.
    """
    shape = (listed["num_rows"], dim)
    with contextlib.ExitStack() as files:
        tar = files.enter_context(lake.local(listed["tar"]["path"]))
        embeddings = {
            kind: _mapped(files.enter_context(lake.local(listed[kind]["path"])), listed[kind]["path"], shape)
            for kind in EMBEDDING_KINDS
        }
        has_row = np.logical_and.reduce([rows.any(axis=1) for rows in embeddings.values()])
        said: dict[str, dict[str, Any]] = {}
        dropped = dict.fromkeys((TOMBSTONE, NO_EMBEDDING), 0)
        for row in read_rows(lake, listed["parquet"]["path"]):
            number, index = layout.split(row["key"])
            if number != listed["number"] or index >= listed["num_rows"]:
                raise CorruptFile(f"{listed['parquet']['path']}: key {row['key']} is of another shard; verify it")
            if row["status"] != SUCCESS:
                continue
            if row["key"] in dead:
                dropped[TOMBSTONE] += 1
            elif not has_row[index]:
                dropped[NO_EMBEDDING] += 1
            else:
                said[row["key"]] = row
        keys = sorted(said)
        yield LiveShard(
            number=listed["number"],
            name=layout.shard_name(listed["number"]),
            split=listed["split"],
            num_rows=listed["num_rows"],
            keys=keys,
            indices=np.array([layout.split(key)[1] for key in keys], dtype=np.int64),
            said=said,
            tar=tar,
            embeddings=embeddings,
            dropped={reason: count for reason, count in dropped.items() if count},
        )


def _mapped(path: Path, shown: str, shape: tuple[int, int]) -> npt.NDArray[np.floating[Any]]:
    try:
        rows: npt.NDArray[np.floating[Any]] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise CorruptFile(f"{shown} is no whole .npy file ({error}); run `sp-data verify`") from error
    if rows.shape != shape:
        raise CorruptFile(f"{shown} holds {rows.shape}, the dataset manifest says {shape}; run `sp-data verify`")
    return rows
