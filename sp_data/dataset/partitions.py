"""clip-retrieval's output as it lies on disk: partitions of embeddings, and the metadata that names their rows.

img_emb/img_emb_3.npy          (n, dim)
text_emb/text_emb_3.npy        (n, dim), where text was embedded
metadata/metadata_3.parquet    column image_path: the key of row r
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.errors import CorruptFile, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.parquet import read_table

KINDS = ("img_emb", "text_emb")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one kind of embedding, with the file that names its rows."""

    embeddings: Path
    metadata: Path

    def rows(self) -> npt.NDArray[np.floating[Any]]:
        """Memory-mapped `(n, dim)` in the file's own dtype. Raises CorruptFile."""
        try:
            rows: npt.NDArray[np.floating[Any]] = np.load(self.embeddings, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise CorruptFile(f"{self.embeddings} is no whole .npy file ({error}); embed it again") from error
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
            raise CorruptFile(f"{self.embeddings} is {rows.shape} {rows.dtype}: expected (n, dim) floats")
        return rows

    def keys(self) -> list[str]:
        """The key of each row. Raises CorruptFile if the metadata is cut or has another number of rows."""
        keys: list[str] = read_table(self.metadata, str(self.metadata), ["image_path"])["image_path"].to_pylist()
        if odd := [row for row, key in enumerate(keys) if not isinstance(key, str)]:
            raise CorruptFile(
                f"{self.metadata} row {odd[0]} names the key {keys[odd[0]]!r}: expected text such as 000070042"
            )
        if len(keys) != len(self.rows()):
            raise CorruptFile(
                f"{self.metadata} names {len(keys):,} rows, {self.embeddings} has {len(self.rows()):,}: "
                "they are not of one run; embed them again"
            )
        return keys


def find_partitions(embeddings: Path, metadata: Path, kind: str) -> list[Partition]:
    """The partitions of one kind in two folders, by number.

    Raises StageNotDone if there are none, CorruptFile if one has no partner.
    """
    of_embeddings = _numbered(embeddings, kind, "npy")
    of_metadata = _numbered(metadata, "metadata", "parquet")
    if not of_embeddings:
        raise StageNotDone(f"{embeddings} holds no {kind}_N.npy: expected the output of clip-retrieval inference")
    if odd := sorted(of_embeddings.keys() ^ of_metadata.keys()):
        there = of_embeddings.get(odd[0]) or of_metadata[odd[0]]
        raise CorruptFile(
            f"{there} has no partner of number {odd[0]} in {metadata if odd[0] in of_embeddings else embeddings}: "
            "a partition is missing; embed it again"
        )
    return [Partition(of_embeddings[number], of_metadata[number]) for number in sorted(of_embeddings)]


def _numbered(folder: Path, stem: str, extension: str) -> dict[int, Path]:
    pattern = re.compile(rf"{stem}_(\d+)\.{extension}")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := pattern.fullmatch(path.name):
            number = int(match[1])
            if number in found:
                raise CorruptFile(
                    f"{path} and {found[number]} have one number: an earlier run's files were left; remove them"
                )
            found[number] = path
    return found


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Where the row of each key lies: four arrays of one length, sorted by shard, then index."""

    shard: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    partition: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    def of_shard(self, number: int) -> KeyTable:
        low, high = np.searchsorted(self.shard, [number, number + 1])
        part = slice(int(low), int(high))
        return KeyTable(self.shard[part], self.index[part], self.partition[part], self.row[part])


def key_table(keys: list[list[str]], layout: KeyLayout) -> KeyTable:
    """`keys[p][r]` is the key of row r of partition p. Raises LayoutError for a key that does not fit `layout`."""
    pairs = [layout.split_all(of_partition) for of_partition in keys]
    shard = np.concatenate([pair[0] for pair in pairs]) if pairs else np.empty(0, np.int64)
    index = np.concatenate([pair[1] for pair in pairs]) if pairs else np.empty(0, np.int64)
    sizes = [len(of_partition) for of_partition in keys]
    partition = np.repeat(np.arange(len(sizes)), sizes)
    row = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.empty(0, np.int64)
    order = np.lexsort((index, shard))
    return KeyTable(shard[order], index[order], partition[order], row[order])
