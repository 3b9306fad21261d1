"""Rows, from wherever they lie in the partitions, into one shard's file, a block at a time.

A block is small enough to stay in the processor's cache between being gathered, checked and written, so that memory is
read once and written once; and so that a shard of any size takes a few MB.
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
"""Smaller ones wait for the interpreter more than for memory: threads share it between numpy's calls."""

_buffers = threading.local()


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of all partitions of one kind, mapped, one partition after the other."""

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
        """`num_rows`: how many rows the metadata of each names. Without `dim` or `dtype` they are the first's.

        Raises CorruptFile if one has others.
        """
        parts = [partition.rows() for partition in partitions]
        for partition, rows, named in zip(partitions, parts, num_rows, strict=True):
            if len(rows) != named:
                raise CorruptFile(
                    f"{partition.metadata} names {named:,} rows, {partition.embeddings} has {len(rows):,}: they are "
                    "not of one run; embed them again"
                )
        dim = parts[0].shape[1] if dim is None and parts else dim or 0
        wanted = np.dtype(parts[0].dtype if dtype is None and parts else dtype or np.float16)
        for partition, rows in zip(partitions, parts, strict=True):
            if rows.shape[1] != dim or rows.dtype != wanted:
                raise CorruptFile(
                    f"{partition.embeddings} has {rows.shape[1]} numbers a row, {rows.dtype}: expected {dim}, "
                    f"{wanted}, like the others"
                )
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in parts])]).astype(np.int64)
        # As plain arrays: numpy.memmap does some work of its own for every slice.
        return cls([rows.view(np.ndarray) for rows in parts], starts, dim, wanted)


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
    # numpy's own header, so that the file is what `np.save` would write; numpy gives this function no types.
    np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]
    length = max(1, BLOCK_BYTES // max(1, sources.dim * sources.dtype.itemsize))
    block = _buffer(length, sources)
    for start in range(0, len(rows), length):
        wanted = rows[start : start + length]
        into = block[: len(wanted)]
        _gather(wanted, sources, into)
        if (odd := first_not_finite(into)) is not None:
            raise NotFinite(start + odd)
        stream.write(into.data)


def _buffer(length: int, sources: Sources) -> npt.NDArray[np.floating[Any]]:
    """This thread's own `(length, dim)`, kept for its next shard: fresh memory costs as much as the rows it takes."""
    kept: npt.NDArray[np.floating[Any]] | None = getattr(_buffers, "block", None)
    if kept is None or kept.shape != (length, sources.dim) or kept.dtype != sources.dtype:
        kept = _buffers.block = np.empty((length, sources.dim), dtype=sources.dtype)
    return kept


def _gather(wanted: npt.NDArray[np.int64], sources: Sources, into: npt.NDArray[np.floating[Any]]) -> None:
    # In the order in which they lie: a disk reads forwards, and each partition is asked once.
    order = np.argsort(wanted, kind="stable")
    ascending = wanted[order]
    edges = np.searchsorted(ascending, sources.starts)
    if edges[0]:
        into[order[: edges[0]]] = 0
    for number in np.flatnonzero(np.diff(edges)):
        low, high = edges[number], edges[number + 1]
        into[order[low:high]] = sources.parts[number][ascending[low:high] - sources.starts[number]]


_WHOLE: dict[int, tuple[npt.DTypeLike, npt.DTypeLike, int]] = {
    2: (np.int16, np.uint16, 0x7C00),
    4: (np.int32, np.uint32, 0x7F800000),
    8: (np.int64, np.uint64, 0x7FF0000000000000),
}
"""Bytes of a number (IEEE 754) -> whole numbers with and without a sign of as many, and infinity as one."""


def first_not_finite(block: npt.NDArray[np.floating[Any]]) -> int | None:
    """Index of the first row with NaN or an infinity, None if all are finite. `block` is `(n, dim)`, contiguous."""
    if block.size and block.dtype.isnative and block.itemsize in _WHOLE:
        # numpy asks half-precision numbers one by one; as whole numbers they take a twentieth of the time. Beyond
        # infinity lies only NaN: read with a sign among the positive numbers, without one among the negative.
        signed, unsigned, infinity = _WHOLE[block.itemsize]
        sign = 1 << (8 * block.itemsize - 1)
        if block.view(signed).max() < infinity and block.view(unsigned).max() < infinity + sign:
            return None
    found = np.flatnonzero(~np.isfinite(block).all(axis=1))
    return int(found[0]) if found.size else None
