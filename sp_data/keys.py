"""Keys: "000070042" is the sample with index 0042 in shard 00007.

img2dataset writes a key as shard number and index, both padded with zeros, and stores the two widths nowhere: the
shard's is `oom_shard_count` (5 unless changed), the index's is ceil(log10(number_sample_per_shard)). Cut at the wrong
place a key still reads as two numbers, and every picture is silently paired with another picture's embedding. So the
widths travel in manifests, and where they are not known they are proved or refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sp_data.errors import LayoutError

IMG2DATASET_SHARD_WIDTH = 5
"""img2dataset's default for `oom_shard_count`."""
MIN_SHARDS_NAMED = 0.95
"""The share of the shard numbers that keys must name for a reading of them to count as proved."""
KEYS_A_BLOCK = 1 << 18
SHARDS_COUNTED_BY_MARKS = 10**6
"""Up to this many shard numbers, one mark for each is faster than sorting the keys."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """How many digits of a key name the shard, and how many the index."""

    shard_width: int
    index_width: int

    def __post_init__(self) -> None:
        if self.shard_width < 1 or self.index_width < 0 or self.width > 18:
            raise LayoutError(
                f"key layout {self}: expected a shard width of at least 1, an index width of at least 0, "
                "and at most 18 digits together"
            )

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
            raise LayoutError(f"key layout {text!r}: expected the widths SHARD+INDEX, such as 5+4")
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
            raise LayoutError(f"key {key!r} is not made of {self.width} digits, as layout {self} requires")
        shard, index = divmod(int(key), int(10**self.index_width))
        return shard, index

    def split_numbers(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Shard numbers and indices of keys that were read as numbers (70042 for "000070042"), both `(n,)` int64."""
        shards = numbers // 10**self.index_width
        return shards, numbers - shards * 10**self.index_width


@dataclass(frozen=True, slots=True)
class KeyReading:
    """What a set of keys looks like when cut in one way."""

    layout: KeyLayout
    num_shards: int
    last_shard: int
    last_index: int

    @property
    def plausible(self) -> bool:
        """Whether img2dataset could have written these keys.

        Shards are numbered from 0 without gaps, except for the odd shard in which every download failed, and the index
        is no wider than its largest value needs.
        """
        index_width = len(str(self.last_index)) if self.layout.index_width else 0
        return self.num_shards >= MIN_SHARDS_NAMED * (self.last_shard + 1) and index_width == self.layout.index_width

    def __str__(self) -> str:
        return (
            f"{self.layout}: {self.num_shards} shards up to {self.layout.shard_name(self.last_shard)}, "
            f"indices up to {self.last_index}"
        )


def reading_of(numbers: npt.NDArray[np.int64], layout: KeyLayout) -> KeyReading:
    """What keys, `(n,)` int64 as numbers, look like when cut by `layout`. Raises LayoutError if there are none."""
    if not len(numbers):
        raise LayoutError("no keys: nothing to read a layout from")
    shards_named: set[int] | npt.NDArray[np.bool_]
    can_be_marked = 10**layout.shard_width <= SHARDS_COUNTED_BY_MARKS
    shards_named = np.zeros(10**layout.shard_width, dtype=np.bool_) if can_be_marked else set()
    last_shard = last_index = 0
    for start in range(0, len(numbers), KEYS_A_BLOCK):
        shards, indices = layout.split_numbers(numbers[start : start + KEYS_A_BLOCK])
        last_shard, last_index = max(last_shard, int(shards.max())), max(last_index, int(indices.max()))
        if isinstance(shards_named, set):
            shards_named.update(np.unique(shards).tolist())
        else:
            shards_named[shards] = True
    num_shards = len(shards_named) if isinstance(shards_named, set) else int(np.count_nonzero(shards_named))
    return KeyReading(layout, num_shards, last_shard, last_index)


def possible_readings(numbers: npt.NDArray[np.int64], width: int) -> list[KeyReading]:
    """Every way to cut keys of `width` digits, `(n,)` int64 as numbers, into shard and index. Raises LayoutError."""
    layouts = [KeyLayout(shard_width, width - shard_width) for shard_width in range(1, width)]
    return [reading_of(numbers, layout) for layout in layouts]


def infer_layout(numbers: npt.NDArray[np.int64], width: int) -> KeyLayout:
    """The layout of foreign keys: img2dataset's 5 digits for the shard, if the keys agree with it.

    `numbers` are the keys as numbers, `(n,)` int64; `width` is how many digits each had. Raises LayoutError, with every
    possible reading, if they do not agree: then only the person who made the keys knows.
    """
    if width > IMG2DATASET_SHARD_WIDTH:
        layout = KeyLayout(IMG2DATASET_SHARD_WIDTH, width - IMG2DATASET_SHARD_WIDTH)
        if reading_of(numbers, layout).plausible:
            return layout
    possible = "; ".join(str(reading) for reading in possible_readings(numbers, width))
    first = f"{int(numbers[0]):0{width}d}" if len(numbers) else ""
    raise LayoutError(
        f"the keys ({first!r} and {len(numbers) - 1:,} more) do not look like img2dataset's with 5 digits for the "
        f"shard; pass --layout SHARD+INDEX, or --shards with img2dataset's folder. Possible readings: {possible}"
    )
