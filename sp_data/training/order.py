"""In which order samples are trained on: a pure function of the seed, so that a resumed run sees the very next ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt


def batch(step: int, *, num_samples: int, batch_size: int, seed: int) -> list[int]:
    """The samples of one step, from an endless row of epochs, each of which has every sample once, shuffled anew."""
    first = step * batch_size
    return [
        int(_epoch(position // num_samples, num_samples, seed)[position % num_samples])
        for position in range(first, first + batch_size)
    ]


@lru_cache(maxsize=2)
def _epoch(number: int, num_samples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, number]).permutation(num_samples)


class Batches:
    """The batches of steps `start` to `stop`, for torch's DataLoader."""

    def __init__(self, start: int, stop: int, *, num_samples: int, batch_size: int, seed: int) -> None:
        self.steps = range(start, stop)
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield batch(step, num_samples=self.num_samples, batch_size=self.batch_size, seed=self.seed)
