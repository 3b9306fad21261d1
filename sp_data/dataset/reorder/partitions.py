"""clip-retrieval's output on disk: partitions of embeddings, and the metadata that has the key of each row.

img_emb/img_emb_3.npy          (n, dim)
text_emb/text_emb_3.npy        (n, dim), where text was embedded
metadata/metadata_3.parquet    column image_path: the key of row r
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sp_data.arrays import map_array
from sp_data.errors import CorruptFile, LayoutError, StageNotDone
from sp_data.parquet import column_blocks

EMBEDDING_KINDS = ("img_emb", "text_emb")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one kind of embedding, with the metadata file that has the keys of its rows."""

    embeddings: Path
    metadata: Path

    def rows(self) -> npt.NDArray[np.floating[Any]]:
        """Memory-mapped `(n, dim)` in the file's own dtype. Raises CorruptFile."""
        rows: npt.NDArray[np.floating[Any]] = map_array(self.embeddings, cure="embed it again")
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
            raise CorruptFile(f"{self.embeddings} is {rows.shape} {rows.dtype}: expected (n, dim) floats")
        return rows


def read_keys(metadata: Path) -> Iterator[pa.StringArray]:
    """The keys of a partition's rows, in row order, block by block. Raises CorruptFile."""
    row = 0
    for block in column_blocks(metadata, str(metadata), "image_path"):
        keys = as_keys(block, metadata, row)
        row += len(keys)
        yield keys


def as_keys(block: pa.Array, metadata: Path, first_row: int = 0) -> pa.StringArray:
    """A column of keys as text, whatever encodes it. Raises CorruptFile that names file and row."""
    kind = block.type.value_type if pa.types.is_dictionary(block.type) else block.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text or block.null_count:
        offset = pc.index(pc.is_valid(block), value=False).as_py() if block.null_count else 0
        shown = repr(block[offset].as_py())[:60] if len(block) else str(kind)
        raise CorruptFile(
            f"{metadata} row {first_row + offset} names the key {shown}: expected text such as '000070042', with its "
            "zeros; embed the tars again, or write the column image_path again"
        )
    return block if pa.types.is_string(block.type) else block.cast(pa.string())


def key_numbers(keys: pa.StringArray, width: int, shown: str = "", first_row: int = 0) -> npt.NDArray[np.int64]:
    """Keys of `width` digits as numbers, `(n,)` int64: 70042 for "000070042". Raises LayoutError for any other key.

    `shown` and `first_row` are the file that the keys are from and its row of the first one, for the error.
    """
    lengths = _to_numpy(pc.binary_length(keys))
    is_decimal = _to_numpy(pc.cast(pc.ascii_is_decimal(keys), pa.uint8()))
    if (wrong := np.flatnonzero((lengths != width) | (is_decimal == 0))).size:
        key = keys[int(wrong[0])].as_py()
        where = f"{shown} row {first_row + int(wrong[0])}: " if shown else ""
        cure = "; write the keys alone, without folder and extension, such as 000070042" if "/" in key else ""
        raise LayoutError(f"{where}key {key[:200]!r} is not made of {width} digits, as all keys of one run are{cure}")
    return _to_numpy(pc.cast(keys, pa.int64()))


def _to_numpy(numbers: pa.Array) -> npt.NDArray[Any]:
    """Integers without nulls, not copied. pyarrow's `to_numpy` imports pandas, which takes longer than reading keys."""
    if not len(numbers):
        return np.empty(0, dtype=str(numbers.type))
    buffer = np.frombuffer(numbers.buffers()[1], dtype=str(numbers.type))
    return buffer[numbers.offset : numbers.offset + len(numbers)]


def find_partitions(embeddings: Path, metadata: Path, kind: str) -> list[Partition]:
    """The partitions of one kind in two folders, by number.

    Raises StageNotDone if there are none, CorruptFile if one has no partner.
    """
    of_embeddings = numbered_files(embeddings, kind, "npy")
    of_metadata = numbered_files(metadata, "metadata", "parquet")
    if not of_embeddings:
        raise StageNotDone(f"{embeddings} holds no {kind}_N.npy: expected the output of clip-retrieval inference")
    if unpaired := sorted(of_embeddings.keys() ^ of_metadata.keys()):
        path = of_embeddings.get(unpaired[0]) or of_metadata[unpaired[0]]
        raise CorruptFile(
            f"{path} has no partner of number {unpaired[0]} in "
            f"{metadata if unpaired[0] in of_embeddings else embeddings}: a partition is missing; embed it again"
        )
    return [Partition(of_embeddings[number], of_metadata[number]) for number in sorted(of_embeddings)]


def numbered_files(folder: Path, stem: str, extension: str) -> dict[int, Path]:
    """Number -> file of `stem`_N.`extension` in a folder. Raises CorruptFile if two have the same number."""
    pattern = re.compile(rf"{stem}_(\d+)\.{extension}")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := pattern.fullmatch(path.name):
            number = int(match[1])
            if number in files:
                raise CorruptFile(
                    f"{path} and {files[number]} have one number: an earlier run left files behind; remove them"
                )
            files[number] = path
    return files
