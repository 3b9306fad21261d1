"""Where each row goes: a slot for every key of every shard, holding the row of the embeddings that belongs there.

    shard 00007     812   -1   40   ...     slot 0: row 812 of all partitions, one after the other; slot 1: no row

Keys are scattered into the slots, never sorted: two bytes of arithmetic a digit and one write a key, and a slot that is
taken already is a key that comes twice. Slots and keys lie in files without a name, which the system removes with the
process however that ends; so a plan of a hundred million rows needs disk, and no more memory than a small one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sp_data.dataset.reorder.partitions import Partition, key_numbers, read_keys
from sp_data.errors import DuplicateKey, KeyOutsideShard
from sp_data.keys import KEYS_A_BLOCK, KeyLayout
from sp_data.parquet import num_rows_in

NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all partitions, one partition after the other."""

    numbers: npt.NDArray[np.int64]
    """`(n,)`: the key as a number."""
    width: int
    """Digits of each key."""
    partitions: Sequence[Partition]
    starts: npt.NDArray[np.int64]
    """`(partitions + 1,)`: where each partition begins, and where the last one ends."""

    def place(self, row: int) -> str:
        """ "row 7 of img_emb_3.npy" """
        number = int(np.searchsorted(self.starts, row, "right")) - 1
        return f"row {row - int(self.starts[number])} of {self.partitions[number].embeddings.name}"


@dataclass(frozen=True, slots=True)
class ReorderPlan:
    """For every shard the row of each of its slots."""

    layout: KeyLayout
    num_rows: dict[int, int]
    """Shard -> how many slots it has."""
    num_placed: int
    slots: npt.NDArray[np.int64]
    """Of all shards in the order of their numbers."""
    first_slot: dict[int, int]

    def of_shard(self, shard: int) -> npt.NDArray[np.int64]:
        """`(num_rows,)`: for each index the row, counted over all partitions, or NO_ROW."""
        first = self.first_slot[shard]
        return self.slots[first : first + self.num_rows[shard]]


def keys_of(partitions: Sequence[Partition], folder: Path, width: int | None = None) -> Keys:
    """Read the metadata of all partitions, and nothing of their embeddings; `folder` is where a file without a name may
    lie meanwhile.

    Without a `width` it is that of the first key. Raises CorruptFile where a key is no text, LayoutError for keys of
    another width.
    """
    sizes = [num_rows_in(partition.metadata, str(partition.metadata)) for partition in partitions]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    numbers, width = read_numbers([partition.metadata for partition in partitions], folder, width)
    return Keys(numbers, width, partitions, starts)


def read_numbers(metadata: Sequence[Path], folder: Path, width: int | None = None) -> tuple[npt.NDArray[np.int64], int]:
    """All keys of some metadata files as numbers, `(n,)` int64, and how many digits each has.

    Raises CorruptFile for a key that is no text, LayoutError for keys of another width than the first (or `width`).
    """
    numbers = _unnamed(sum(num_rows_in(path, str(path)) for path in metadata), folder)
    read = 0
    for path in metadata:
        for block in read_keys(path):
            if width is None and len(block):
                width = len(block[0].as_py())
            numbers[read : read + len(block)] = key_numbers(block, width or 0)
            read += len(block)
    return numbers, width or 0


def plan_rows(keys: Keys, layout: KeyLayout, num_rows: dict[int, int], folder: Path) -> ReorderPlan:
    """Give each key its slot. `num_rows` says how many slots each shard has.

    Raises DuplicateKey if two rows have one key, KeyOutsideShard for a key beyond its shard or of no shard at all.
    """
    first_slot: dict[int, int] = {}
    num_slots = 0
    for shard in sorted(num_rows):
        first_slot[shard] = num_slots
        num_slots += num_rows[shard]
    slots = _unnamed(num_slots, folder)
    slots[:] = NO_ROW
    # As arrays over the shard numbers, so that a block of keys is looked up at once. No shard: no slots.
    first = np.zeros(max(num_rows, default=-1) + 2, dtype=np.int64)
    size = np.zeros(len(first), dtype=np.int64)
    first[list(first_slot)] = list(first_slot.values())
    size[list(num_rows)] = list(num_rows.values())
    for start in range(0, len(keys.numbers), KEYS_A_BLOCK):
        shards, indices = layout.split_numbers(keys.numbers[start : start + KEYS_A_BLOCK])
        known = np.minimum(shards, len(first) - 1)
        if (odd := np.flatnonzero(indices >= size[known])).size:
            raise _outside(keys, layout, num_rows, start + int(odd[0]))
        slot = first[known] + indices
        rows = np.arange(start, start + len(slot))
        before = slots[slot]
        slots[slot] = rows
        # Of two rows for one slot within the block, the later one is in it now.
        after = slots[slot]
        if (odd := np.flatnonzero((before != NO_ROW) | (after != rows))).size:
            one = int(odd[0])
            other = int(before[one] if before[one] != NO_ROW else after[one])
            key = layout.key(int(shards[one]), int(indices[one]))
            raise DuplicateKey(
                f"key {key} comes twice: {keys.place(min(start + one, other))} and "
                f"{keys.place(max(start + one, other))}; embed into a fresh folder"
            )
    return ReorderPlan(layout, num_rows, len(keys.numbers), slots, first_slot)


def _outside(keys: Keys, layout: KeyLayout, num_rows: dict[int, int], row: int) -> KeyOutsideShard:
    number = int(keys.numbers[row])
    shard, index = divmod(number, 10**layout.index_width)
    where = f"key {number:0{layout.width}d} ({keys.place(row)})"
    if shard not in num_rows:
        return KeyOutsideShard(
            f"{where} is of shard {layout.shard_name(shard)}, which is not one of the {len(num_rows):,} shards; embed "
            f"into a fresh folder, or the layout is not {layout}"
        )
    return KeyOutsideShard(
        f"{where} has index {index}, beyond the {num_rows[shard]:,} rows of shard {layout.shard_name(shard)}; its "
        f"layout may not be {layout}"
    )


def _unnamed(length: int, folder: Path) -> npt.NDArray[np.int64]:
    """`(length,)` int64 in a file that nobody can find."""
    if not length:
        return np.empty(0, dtype=np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(8 * length)
        # As a plain array: numpy.memmap does some work of its own for every slice.
        return np.memmap(file, dtype=np.int64, mode="r+", shape=(length,)).view(np.ndarray)
