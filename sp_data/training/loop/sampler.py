"""The order in which samples are trained on: a pure function of the seed, so that a resumed run continues it.

position   0  1  2  3  4 | 5  6  7  8  9 | 10 …       one integer, which decides the sample
sample     3  0  4  1  2 | 1  4  0  2  3 |  …         five samples, each once per epoch, shuffled in each
batch      └──0──┘ └───1───┘ └──2──┘ └─3─┘             of 3 samples: an epoch may end inside a batch
rank       0  1  0  0  1  0  …                        of 2 processes: each takes every second sample of the batch
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def between(start: int, stop: int, *, num_samples: int, seed: int) -> list[int]:
    """The samples at positions `start` to `stop` of an endless sequence of epochs."""
    samples: list[int] = []
    while start < stop:
        epoch, first = divmod(start, num_samples)
        last = min(num_samples, first + stop - start)
        samples += _epoch(epoch, num_samples, seed)[first:last].tolist()
        start += last - first
    return samples


@lru_cache(maxsize=2)
def _epoch(epoch: int, num_samples: int, seed: int) -> npt.NDArray[Any]:
    # Four bytes per sample instead of permutation()'s eight, in the same order.
    order = np.arange(num_samples, dtype=np.uint32 if num_samples < 2**32 else np.uint64)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


class Batches:
    """The batches of positions `start` to `stop`, for torch's DataLoader; the last one may be shorter.

    Of several processes that train together, `rank` takes its share of each batch: every `world_size`-th sample. The
    samples of a batch do not depend on the number of processes, so a run may be resumed with more or fewer. Nothing is
    padded: each sample comes once per epoch, to one process; shares differ by one sample if `world_size` does not
    divide the batch.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Raises ValueError if a process would get no sample of a batch, or if `rank` is out of range."""
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(
                f"process {rank} of {world_size} with batches of {batch_size}: expected 0 <= rank < world_size <= "
                "batch_size"
            )
        self.start, self.stop = start, stop
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        whole, remainder = divmod(max(0, self.stop - self.start), self.batch_size)
        return whole + (remainder > self.rank)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.stop, self.batch_size):
            last = min(first + self.batch_size, self.stop)
            batch = between(first, last, num_samples=self.num_samples, seed=self.seed)
            if share := batch[self.rank :: self.world_size]:
                yield share
