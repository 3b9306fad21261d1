"""The index of a shard's tar: where each sample lies in it, found once and kept in the lake as a small array.

    index/00007-3f2a91bc5d60.npy      one record a sample, in key order: its row; offset and size of each of its files
                                      row 42 | jpg 131584, 20113 | txt 152576, 31 | json 153600, 702

Reading a tar's headers takes 5 µs each: twenty minutes for 100 million samples, and the disk's seeks. So it is done
once. The index's name has a digest of the files it was made from; removing `index/` costs only time.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.arrays import map_array
from sp_data.canonical import digest_of
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.members import tar_members
from sp_data.errors import CorruptFile, DuplicateKey, KeyOutsideShard, LayoutError
from sp_data.keys import KeyLayout

VERSION = 1
FILES = ("jpg", "txt", "json")
RECORD = np.dtype(
    [("row", "<u4")]
    + [(f"{name}{suffix}", kind) for name in FILES for suffix, kind in (("", "<u8"), ("_bytes", "<u4"))]
)
"""`row` of the shard's embeddings; `jpg`, `txt`, `json`: where its bytes begin in the tar, `_bytes`: its size."""


def index_path(shard: dict[str, Any], layout: KeyLayout) -> str:
    """Path in the lake of a shard's index. `shard` is the shard's entry in the dataset manifest."""
    made_of = [VERSION, str(layout), *(shard[name]["sha256"] for name in ("tar", *EMBEDDING_KINDS))]
    return f"index/{layout.shard_name(shard['number'])}-{digest_of(made_of)[:12]}.npy"


def index_tar(
    tar: Path, rows: list[npt.NDArray[Any]], shard: dict[str, Any], layout: KeyLayout, verify: str
) -> npt.NDArray[np.void]:
    """Index the samples that have a picture, a caption and embeddings: `(n,)` RECORD, in key order.

    `rows` are the shard's image and text embeddings, each `(num_rows, dim)`: a sample that could not be embedded has
    zeros there, and training cannot use it. `verify` is the command that an error advises.

    Raises CorruptFile if the tar is cut or the number of its samples is not the manifest's, KeyOutsideShard for a key
    of another shard, DuplicateKey for a file that comes twice.
    """
    name = shard["tar"]["path"]
    files_by_row: dict[int, dict[str, tuple[int, int]]] = {}
    for member, offset, size in tar_members(tar, name, f"run {verify}"):
        key, _, extension = member.partition(".")
        try:
            number, row = layout.split(key)
        except LayoutError as error:
            raise KeyOutsideShard(f"{name}: {error}; run {verify}") from error
        if number != shard["number"] or row >= shard["num_rows"]:
            raise KeyOutsideShard(f"{name}: key {key} is of another shard; run {verify}")
        files = files_by_row.setdefault(row, {})
        if extension in files:
            raise DuplicateKey(f"{name}: {member} comes twice; run {verify}")
        files[extension] = (offset, size)
    if len(files_by_row) != shard["num_samples"]:
        raise CorruptFile(
            f"{name} holds {len(files_by_row):,} samples, the dataset manifest says {shard['num_samples']:,}; "
            f"run {verify}"
        )
    embedded = np.logical_and.reduce([array.any(axis=1) for array in rows])
    whole = [row for row in sorted(files_by_row) if embedded[row] and {"jpg", "txt"} <= files_by_row[row].keys()]
    records = np.zeros(len(whole), RECORD)
    records["row"] = whole
    for extension in FILES:
        offsets_and_sizes = [files_by_row[row].get(extension, (0, 0)) for row in whole]
        records[extension], records[f"{extension}_bytes"] = np.array(offsets_and_sizes, np.int64).reshape(-1, 2).T
    return records


def to_npy(records: npt.NDArray[np.void]) -> bytes:
    """The index as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, records)
    return stream.getvalue()


def read_index(path: Path) -> npt.NDArray[np.void] | None:
    """A stored index, memory-mapped; None if the file is not one, since it can be made again."""
    try:
        mapped = map_array(path)
    except CorruptFile:
        return None
    return np.asarray(mapped) if mapped.dtype == RECORD and mapped.ndim == 1 else None
