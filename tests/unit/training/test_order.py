"""The order of samples: each once an epoch, a function of the seed, and the same from wherever one begins."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sp_data.training.order import Batches, batch

sizes = {"num_samples": st.integers(1, 40), "batch_size": st.integers(1, 50), "seed": st.integers(0, 5)}


@given(**sizes)
def test_every_sample_comes_once_an_epoch(num_samples: int, batch_size: int, seed: int) -> None:
    # As many steps as end with an epoch: each sample was seen equally often.
    steps = range(num_samples)
    seen = Counter(
        index for step in steps for index in batch(step, num_samples=num_samples, batch_size=batch_size, seed=seed)
    )
    assert seen == dict.fromkeys(range(num_samples), batch_size)


@given(start=st.integers(0, 20), **sizes)
def test_a_resumed_run_sees_the_very_next_samples(start: int, num_samples: int, batch_size: int, seed: int) -> None:
    def order(first: int) -> list[list[int]]:
        return list(Batches(first, 24, num_samples=num_samples, batch_size=batch_size, seed=seed))

    assert order(0)[start:] == order(start)


def test_another_seed_and_another_epoch_are_other_orders() -> None:
    def epoch(number: int, seed: int) -> list[int]:
        return batch(number, num_samples=50, batch_size=50, seed=seed)

    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(3, 7) == epoch(3, 7)
