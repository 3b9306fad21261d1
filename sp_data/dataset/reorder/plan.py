"""Where each row goes: a slot for every key of every shard, which holds the row of the embeddings for that key.

    shard 00007     812   -1   40   ...     slot 0: row 812, counted over all partitions; slot 1: no row

Keys are scattered into the slots, never sorted: that takes two bytes of arithmetic a digit and one write a key, and a
slot that is taken already shows a duplicate key. Slots and keys are in files without a name, which the system removes
however the process ends; so a plan of a hundred million rows needs disk, but no more memory than a small one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sp_data.dataset.reorder.partitions import Partition, key_numbers, read_keys
from sp_data.errors import DuplicateKey, KeyOutsideShard, LayoutError
from sp_data.keys import KEYS_A_BLOCK, KeyLayout
from sp_data.parquet import num_rows_in

NO_ROW = -1
MAX_DIGITS = 18
"""Of a key that fits 64 bits."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all partitions, in the order of the partitions."""

    numbers: npt.NDArray[np.int64]
    """`(n,)`: the keys as numbers."""
    width: int
    """Number of digits of each key."""
    partitions: Sequence[Partition]
    starts: npt.NDArray[np.int64]
    """`(partitions + 1,)`: where each partition begins, and where the last one ends."""

    def describe_row(self, row: int) -> str:
        """ "row 7 of img_emb_3.npy" """
        number = int(np.searchsorted(self.starts, row, "right")) - 1
        return f"row {row - int(self.starts[number])} of {self.partitions[number].embeddings.name}"


@dataclass(frozen=True, slots=True)
class ReorderPlan:
    """The row of each slot of each shard."""

    layout: KeyLayout
    num_rows: dict[int, int]
    """Shard -> how many slots it has."""
    num_placed: int
    slots: npt.NDArray[np.int64]
    """`(n,)`: the rows of all slots, or NO_ROW; shards in the order of their numbers."""
    first_slot: dict[int, int]

    def of_shard(self, shard: int) -> npt.NDArray[np.int64]:
        """`(num_rows,)`: for each index of the shard the row, counted over all partitions, or NO_ROW."""
        first = self.first_slot[shard]
        return self.slots[first : first + self.num_rows[shard]]


def keys_of(partitions: Sequence[Partition], folder: Path, width: int | None = None) -> Keys:
    """Read the keys from the metadata of all partitions; the embeddings are not read.

    `folder` is where an unnamed file may be kept meanwhile. Without a `width` it is that of the first key. Raises
    CorruptFile if a key is no text, LayoutError for keys of another width.
    """
    sizes = [num_rows_in(partition.metadata, str(partition.metadata)) for partition in partitions]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    numbers, width = read_numbers([partition.metadata for partition in partitions], folder, width)
    return Keys(numbers, width, partitions, starts)


def read_numbers(metadata: Sequence[Path], folder: Path, width: int | None = None) -> tuple[npt.NDArray[np.int64], int]:
    """All keys of some metadata files as numbers, `(n,)` int64, and the number of digits of each.

    Raises CorruptFile for a key that is no text, LayoutError for keys of another width than the first (or `width`).
    """
    numbers = _unnamed_array(sum(num_rows_in(path, str(path)) for path in metadata), folder)
    num_read = 0
    for path in metadata:
        first = num_read
        for block in read_keys(path):
            if width is None and len(block):
                width = _width(block[0].as_py(), path)
            row = num_read - first
            numbers[num_read : num_read + len(block)] = key_numbers(block, width or 0, str(path), row)
            num_read += len(block)
    return numbers, width or 0


def _width(key: str, path: Path) -> int:
    """The number of digits of the first key. Raises LayoutError if it is none."""
    key_numbers(pa.array([key]), len(key), str(path))
    if len(key) > MAX_DIGITS:
        raise LayoutError(f"{path} row 0: key {key[:40]!r} has {len(key)} digits: expected at most {MAX_DIGITS}")
    return len(key)


def plan_rows(keys: Keys, layout: KeyLayout, num_rows: dict[int, int], folder: Path) -> ReorderPlan:
    """Give each key its slot; `num_rows` is the number of slots of each shard.

    Raises DuplicateKey if two rows have one key, KeyOutsideShard for a key beyond its shard's rows or of no shard.
    """
    first_slot: dict[int, int] = {}
    num_slots = 0
    for shard in sorted(num_rows):
        first_slot[shard] = num_slots
        num_slots += num_rows[shard]
    slots = _unnamed_array(num_slots, folder)
    slots[:] = NO_ROW
    # Arrays over the shard numbers, to look up a block of keys at once. A number without a shard has no slots.
    first_of = np.zeros(max(num_rows, default=-1) + 2, dtype=np.int64)
    size_of = np.zeros(len(first_of), dtype=np.int64)
    first_of[list(first_slot)] = list(first_slot.values())
    size_of[list(num_rows)] = list(num_rows.values())
    for start in range(0, len(keys.numbers), KEYS_A_BLOCK):
        shards, indices = layout.split_numbers(keys.numbers[start : start + KEYS_A_BLOCK])
        known_shards = np.minimum(shards, len(first_of) - 1)
        if (outside := np.flatnonzero(indices >= size_of[known_shards])).size:
            raise _outside_shard(keys, layout, num_rows, start + int(outside[0]))
        slot = first_of[known_shards] + indices
        rows = np.arange(start, start + len(slot))
        before = slots[slot]
        slots[slot] = rows
        # If two rows of the block have the same slot, it now holds the later one.
        after = slots[slot]
        if (taken := np.flatnonzero((before != NO_ROW) | (after != rows))).size:
            position = int(taken[0])
            other = int(before[position] if before[position] != NO_ROW else after[position])
            key = layout.key(int(shards[position]), int(indices[position]))
            raise DuplicateKey(
                f"key {key} comes twice: {keys.describe_row(min(start + position, other))} and "
                f"{keys.describe_row(max(start + position, other))}; embed into a fresh folder"
            )
    return ReorderPlan(layout, num_rows, len(keys.numbers), slots, first_slot)


def _outside_shard(keys: Keys, layout: KeyLayout, num_rows: dict[int, int], row: int) -> KeyOutsideShard:
    number = int(keys.numbers[row])
    shard, index = divmod(number, 10**layout.index_width)
    location = f"key {number:0{layout.width}d} ({keys.describe_row(row)})"
    if shard not in num_rows:
        return KeyOutsideShard(
            f"{location} is of shard {layout.shard_name(shard)}, which is not one of the {len(num_rows):,} shards; "
            f"embed into a fresh folder, or the layout is not {layout}"
        )
    return KeyOutsideShard(
        f"{location} has index {index}, beyond the {num_rows[shard]:,} rows of shard {layout.shard_name(shard)}; its "
        f"layout may not be {layout}"
    )


def _unnamed_array(length: int, folder: Path) -> npt.NDArray[np.int64]:
    """`(length,)` int64 in a file without a name."""
    if not length:
        return np.empty(0, dtype=np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(8 * length)
        # A plain array: numpy.memmap does extra work for every slice.
        return np.memmap(file, dtype=np.int64, mode="r+", shape=(length,)).view(np.ndarray)
