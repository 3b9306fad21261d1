"""Near-duplicates: pictures whose perceptual hashes differ in a few bits and whose colours agree.

Pigeonhole: two hashes of 256 bits that differ in at most b bits agree in at least one of b + 1 bands. So only pictures
that share a band are compared, and the search stays near linear in their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

THUMB_TOLERANCE = 6.0
"""Mean absolute difference of two colour thumbnails, of 255, up to which they agree (JPEG and scaling stay below 3)."""


def relatives(phashes: Sequence[bytes], thumbs: Sequence[bytes], max_bits: int) -> list[list[int]]:
    """For each picture the earlier ones (by position, ascending) that it nearly equals."""
    if not phashes:
        return []
    bits = np.unpackbits(np.frombuffer(b"".join(phashes), dtype=np.uint8).reshape(len(phashes), -1), axis=1)
    colours = np.frombuffer(b"".join(thumbs), dtype=np.uint8).reshape(len(thumbs), -1).astype(np.int16)
    bands = np.array_split(np.arange(bits.shape[1]), max_bits + 1)
    seen: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in bands]
    found: list[list[int]] = []
    for position in range(len(phashes)):
        candidates: set[int] = set()
        for band, buckets in zip(bands, seen, strict=True):
            bucket = buckets[np.packbits(bits[position, band]).tobytes()]
            candidates.update(bucket)
            bucket.append(position)
        found.append(_alike(position, np.array(sorted(candidates), dtype=np.int64), bits, colours, max_bits))
    return found


def _alike(
    position: int,
    candidates: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint8],
    colours: npt.NDArray[np.int16],
    max_bits: int,
) -> list[int]:
    if not len(candidates):
        return []
    near = (bits[candidates] != bits[position]).sum(axis=1) <= max_bits
    same_colours = np.abs(colours[candidates] - colours[position]).mean(axis=1) <= THUMB_TOLERANCE
    return [int(found) for found in candidates[near & same_colours]]
