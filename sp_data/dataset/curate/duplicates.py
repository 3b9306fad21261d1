"""Near-duplicates: pictures whose perceptual hashes differ in a few bits and whose colours agree.

Pigeonhole: two hashes of 256 bits that differ in at most b bits agree in at least one of b + 1 bands. So only pictures
that share a band are compared, and the search stays near linear in their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

THUMB_TOLERANCE = 6.0
"""Two colour thumbnails agree up to this mean absolute difference, of 255 (JPEG and scaling stay below 3)."""


_NUM_ONES = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)
"""Number -> how many of its bits are set."""
Positions = npt.NDArray[np.int64]


class _Band:
    """One band of every hash, and which pictures share it."""

    def __init__(self, bits: npt.NDArray[np.uint8]) -> None:
        """`bits` is `(n, width of the band)`."""
        packed = np.packbits(bits, axis=1)
        _, group = np.unique(packed, axis=0, return_inverse=True)
        group = group.reshape(-1)
        # Sorted by group, and within a group by position.
        self._members: Positions = np.argsort(group, kind="stable")
        sizes = np.bincount(group)
        self._start: Positions = (np.cumsum(sizes) - sizes)[group]
        self._rank: Positions = np.empty(len(group), dtype=np.int64)
        self._rank[self._members] = np.arange(len(group))

    def earlier(self, position: int) -> Positions:
        """Positions before this one that share the band, ascending."""
        return self._members[self._start[position] : self._rank[position]]


def relatives(phashes: Sequence[bytes], thumbs: Sequence[bytes], max_bits: int) -> list[list[int]]:
    """For each picture, the positions of the earlier ones that it nearly equals, ascending."""
    if not phashes:
        return []
    hashes = np.frombuffer(b"".join(phashes), dtype=np.uint8).reshape(len(phashes), -1)
    colours = np.frombuffer(b"".join(thumbs), dtype=np.uint8).reshape(len(thumbs), -1).astype(np.int16)
    bits = np.unpackbits(hashes, axis=1)
    bands = [_Band(bits[:, columns]) for columns in np.array_split(np.arange(bits.shape[1]), max_bits + 1)]
    words = hashes.view(np.uint16)
    all_relatives: list[list[int]] = []
    for position in range(len(phashes)):
        near = np.unique(np.concatenate([band.earlier(position) for band in bands]))
        near = near[_NUM_ONES[words[near] ^ words[position]].sum(axis=1, dtype=np.int64) <= max_bits]
        near = near[np.abs(colours[near] - colours[position]).mean(axis=1) <= THUMB_TOLERANCE]
        all_relatives.append([int(relative) for relative in near])
    return all_relatives
