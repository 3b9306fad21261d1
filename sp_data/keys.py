"""Keys: "000070042" is the sample with index 0042 in shard 00007.

img2dataset writes a key as shard number and index, both padded with zeros, and stores the two widths nowhere: the
shard's is `oom_shard_count` (5 unless changed), the index's is ceil(log10(number_sample_per_shard)). Cut at the wrong
place a key still reads as two numbers, and every picture is silently paired with another picture's embedding. So the
widths travel in manifests, and where they are not known they are proved or refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sp_data.errors import LayoutError

IMG2DATASET_SHARD_WIDTH = 5
"""img2dataset's default for `oom_shard_count`."""
MIN_SHARDS_THERE = 0.95
"""Share of the shard numbers that keys must name before their reading counts as proved."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """How many digits of a key name the shard, and how many the index."""

    shard_width: int
    index_width: int

    def __post_init__(self) -> None:
        if self.shard_width < 1 or self.index_width < 0 or self.width > 18:
            raise LayoutError(f"key layout {self}: widths must be at least 1 and 0, and 18 digits at most together")

    def __str__(self) -> str:
        return f"{self.shard_width}+{self.index_width}"

    @property
    def width(self) -> int:
        """Digits in a whole key."""
        return self.shard_width + self.index_width

    @classmethod
    def parse(cls, text: str) -> KeyLayout:
        """Read "5+4". Raises LayoutError."""
        shard, plus, index = text.partition("+")
        if not (plus and shard.isdecimal() and index.isdecimal()):
            raise LayoutError(f"key layout {text!r}: expected digits of the shard + digits of the index, such as 5+4")
        return cls(int(shard), int(index))

    @classmethod
    def of_shards(cls, samples_per_shard: int, shard_width: int = IMG2DATASET_SHARD_WIDTH) -> KeyLayout:
        """The layout img2dataset uses for shards of this size (its formula: 10 -> 1, 100 -> 2, 150 -> 3)."""
        if samples_per_shard < 1:
            raise LayoutError(f"samples_per_shard is {samples_per_shard}: a shard holds at least one sample")
        return cls(shard_width, math.ceil(math.log10(samples_per_shard)))

    def key(self, shard: int, index: int) -> str:
        """(7, 42) -> "000070042". Raises LayoutError if a number does not fit its width."""
        if not (0 <= shard < 10**self.shard_width and 0 <= index < 10**self.index_width):
            raise LayoutError(f"shard {shard}, index {index} does not fit a key of layout {self}")
        return f"{shard * 10**self.index_width + index:0{self.width}d}"

    def shard_name(self, shard: int) -> str:
        """7 -> "00007", as in 00007.tar and img_emb_00007.npy."""
        return f"{shard:0{self.shard_width}d}"

    def split(self, key: str) -> tuple[int, int]:
        """ "000070042" -> (7, 42). Raises LayoutError for a key of another width or with other characters."""
        if len(key) != self.width or not (key.isascii() and key.isdecimal()):
            raise LayoutError(f"key {key!r} is not made of {self.width} digits, as layout {self} asks for")
        shard, index = divmod(int(key), int(10**self.index_width))
        return shard, index

    def split_all(self, keys: Iterable[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Shard numbers and indices of many keys, two int64 arrays `(n,)` in their order. Raises LayoutError."""
        numbers = _numbers(list(keys), self)
        shards, indices = np.divmod(numbers, 10**self.index_width)
        return shards, indices


def _numbers(keys: list[str], layout: KeyLayout) -> npt.NDArray[np.int64]:
    for key in keys:
        if len(key) != layout.width or not (key.isascii() and key.isdecimal()):
            raise LayoutError(f"key {key!r} is not made of {layout.width} digits, as layout {layout} asks for")
    return np.array(keys, dtype=f"U{layout.width}").astype(np.int64) if keys else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a set of keys looks like when cut in one way."""

    layout: KeyLayout
    num_shards: int
    last_shard: int
    last_index: int

    @property
    def plausible(self) -> bool:
        """Whether img2dataset could have written these keys.

        Shards are numbered from 0 without gaps, but for the odd shard whose every download failed; and the index is no
        wider than its largest value needs.
        """
        needed = len(str(self.last_index)) if self.layout.index_width else 0
        return self.num_shards >= MIN_SHARDS_THERE * (self.last_shard + 1) and needed == self.layout.index_width

    def __str__(self) -> str:
        return (
            f"{self.layout}: {self.num_shards} shards up to {self.layout.shard_name(self.last_shard)}, "
            f"indices up to {self.last_index}"
        )


def readings(keys: list[str]) -> list[Reading]:
    """Every way to cut these keys (all of one width) into shard and index. Raises LayoutError if widths differ."""
    if not keys:
        raise LayoutError("no keys: nothing to read a layout from")
    width = len(keys[0])
    numbers = _numbers(keys, KeyLayout(width, 0))
    found = []
    for shard_width in range(1, width):
        layout = KeyLayout(shard_width, width - shard_width)
        shards, indices = np.divmod(numbers, 10**layout.index_width)
        found.append(Reading(layout, len(np.unique(shards)), int(shards.max()), int(indices.max())))
    return found


def infer_layout(keys: list[str]) -> KeyLayout:
    """The layout of foreign keys: img2dataset's 5 digits for the shard, if the keys agree with it.

    Raises LayoutError, with every candidate reading, if they do not: then only the person who made them knows.
    """
    candidates = readings(keys)
    for reading in candidates:
        if reading.layout.shard_width == IMG2DATASET_SHARD_WIDTH and reading.plausible:
            return reading.layout
    shown = "; ".join(str(reading) for reading in candidates)
    raise LayoutError(
        f"the keys ({keys[0]!r} and {len(keys) - 1:,} more) do not look like img2dataset's with 5 digits for the "
        f"shard; say --layout SHARD+INDEX, one of: {shown}"
    )
