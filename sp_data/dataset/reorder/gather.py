"""Gather the rows of one shard from the partitions and write them to its file, a block at a time.

A block is small enough to stay in the processor's cache while it is gathered, checked and written, so that memory is
read once and written once, and a shard of any size takes a few MB.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sp_data.dataset.reorder.partitions import Partition
from sp_data.errors import CorruptFile

BLOCK_BYTES = 1 << 22
"""Smaller blocks wait more for the interpreter, which threads share between numpy's calls, than for memory."""

_buffers = threading.local()


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of all partitions of one kind, memory-mapped, in the order of the partitions."""

    parts: list[npt.NDArray[np.floating[Any]]]
    starts: npt.NDArray[np.int64]
    """`(partitions + 1,)`."""
    dim: int
    dtype: np.dtype[Any]

    @classmethod
    def open(
        cls,
        partitions: Sequence[Partition],
        num_rows: Sequence[int],
        dim: int | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> Sources:
        """`num_rows`: number of rows in each partition's metadata. `dim` and `dtype` default to those of the first.

        Raises CorruptFile if a partition has another number of rows, `dim` or `dtype`.
        """
        parts = [partition.rows() for partition in partitions]
        for partition, rows, num_named in zip(partitions, parts, num_rows, strict=True):
            if len(rows) != num_named:
                raise CorruptFile(
                    f"{partition.metadata} names {num_named:,} rows, {partition.embeddings} has {len(rows):,}: they "
                    "are not of one run; embed them again"
                )
        dim = parts[0].shape[1] if dim is None and parts else dim or 0
        expected = np.dtype(parts[0].dtype if dtype is None and parts else dtype or np.float16)
        for partition, rows in zip(partitions, parts, strict=True):
            if rows.shape[1] != dim or rows.dtype != expected:
                raise CorruptFile(
                    f"{partition.embeddings} has {rows.shape[1]} numbers a row, {rows.dtype}: expected {dim}, "
                    f"{expected}, like the others"
                )
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in parts])]).astype(np.int64)
        # Plain arrays: numpy.memmap does extra work for every slice.
        return cls([rows.view(np.ndarray) for rows in parts], starts, dim, expected)


class NotFinite(Exception):
    """Row `index` of a shard holds NaN or an infinity."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def write_rows(rows: npt.NDArray[np.int64], sources: Sources, stream: BinaryIO) -> None:
    """Write `(len(rows), dim)` as a .npy file: row `rows[i]` of the sources as row i, zeros for NO_ROW.

    Raises NotFinite.
    """
    shape = (len(rows), sources.dim)
    header: dict[str, Any] = {"descr": sources.dtype.str, "fortran_order": False, "shape": shape}
    # numpy's own header, so that the file is the one `np.save` would write; numpy does not annotate this function.
    np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]
    length = max(1, BLOCK_BYTES // max(1, sources.dim * sources.dtype.itemsize))
    block = _buffer(length, sources)
    for start in range(0, len(rows), length):
        wanted = rows[start : start + length]
        target = block[: len(wanted)]
        _gather(wanted, sources, target)
        if (bad_row := first_not_finite(target)) is not None:
            raise NotFinite(start + bad_row)
        stream.write(target.data)


def _buffer(length: int, sources: Sources) -> npt.NDArray[np.floating[Any]]:
    """This thread's `(length, dim)` block, kept for its next shard: new memory costs as much time as filling it."""
    buffer: npt.NDArray[np.floating[Any]] | None = getattr(_buffers, "block", None)
    if buffer is None or buffer.shape != (length, sources.dim) or buffer.dtype != sources.dtype:
        buffer = _buffers.block = np.empty((length, sources.dim), dtype=sources.dtype)
    return buffer


def _gather(wanted: npt.NDArray[np.int64], sources: Sources, target: npt.NDArray[np.floating[Any]]) -> None:
    # In the order of the partitions: a disk reads forwards, and each partition is read once.
    order = np.argsort(wanted, kind="stable")
    ascending = wanted[order]
    edges = np.searchsorted(ascending, sources.starts)
    if edges[0]:
        target[order[: edges[0]]] = 0
    for number in np.flatnonzero(np.diff(edges)):
        low, high = edges[number], edges[number + 1]
        target[order[low:high]] = sources.parts[number][ascending[low:high] - sources.starts[number]]


_INTEGERS: dict[int, tuple[npt.DTypeLike, npt.DTypeLike, int]] = {
    2: (np.int16, np.uint16, 0x7C00),
    4: (np.int32, np.uint32, 0x7F800000),
    8: (np.int64, np.uint64, 0x7FF0000000000000),
}
"""Bytes of a float (IEEE 754) -> signed and unsigned integer types of the same size, and infinity as an integer."""


def first_not_finite(block: npt.NDArray[np.floating[Any]]) -> int | None:
    """Index of the first row with NaN or an infinity; None if all are finite. `block` is `(n, dim)`, contiguous."""
    if block.size and block.dtype.isnative and block.itemsize in _INTEGERS:
        # numpy checks half-precision numbers one by one; as integers they take a twentieth of the time. Only NaN is
        # greater than infinity: as signed integers among positive numbers, as unsigned ones among negative numbers.
        signed, unsigned, infinity = _INTEGERS[block.itemsize]
        sign = 1 << (8 * block.itemsize - 1)
        if block.view(signed).max() < infinity and block.view(unsigned).max() < infinity + sign:
            return None
    bad_rows = np.flatnonzero(~np.isfinite(block).all(axis=1))
    return int(bad_rows[0]) if bad_rows.size else None
