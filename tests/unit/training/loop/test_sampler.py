"""The order of samples: each once an epoch, a function of the seed, and the same from every starting position."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.training.loop.sampler import Batches, between

sizes = {"num_samples": st.integers(1, 40), "batch_size": st.integers(1, 50), "seed": st.integers(0, 5)}


def flat(batches: Batches) -> list[int]:
    return list(chain.from_iterable(batches))


@given(**sizes)
def test_every_sample_comes_once_an_epoch(num_samples: int, batch_size: int, seed: int) -> None:
    for epoch in range(3):
        first = epoch * num_samples
        batches = Batches(first, first + num_samples, num_samples=num_samples, batch_size=batch_size, seed=seed)
        assert sorted(flat(batches)) == list(range(num_samples))


@given(world_size=st.integers(1, 3), start=st.integers(0, 90), length=st.integers(0, 90), **sizes)
def test_every_position_goes_to_one_process_whatever_their_number(
    world_size: int, start: int, length: int, num_samples: int, batch_size: int, seed: int
) -> None:
    size = max(batch_size, world_size)
    alone = Batches(start, start + length, num_samples=num_samples, batch_size=size, seed=seed)
    shares = [
        Batches(
            start,
            start + length,
            num_samples=num_samples,
            batch_size=size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    assert [len(list(share)) for share in shares] == [len(share) for share in shares]
    assert Counter(chain.from_iterable(map(flat, shares))) == Counter(flat(alone))
    # At each step they hold what one process alone would: a run may go on with another number of processes.
    for step, batch in enumerate(alone):
        together = [part for share in shares for part in list(share)[step : step + 1]]
        assert sorted(chain.from_iterable(together)) == sorted(batch)
        assert max(map(len, together)) - min(map(len, together)) <= 1


@given(start=st.integers(0, 200), **sizes)
def test_from_any_position_the_very_next_samples_come(start: int, num_samples: int, batch_size: int, seed: int) -> None:
    def order(first: int) -> list[int]:
        return flat(Batches(first, 240, num_samples=num_samples, batch_size=batch_size, seed=seed))

    assert order(0)[start:] == order(start)


def test_another_seed_and_another_epoch_are_other_orders() -> None:
    def epoch(number: int, seed: int) -> list[int]:
        return between(number * 50, number * 50 + 50, num_samples=50, seed=seed)

    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(3, 7) == epoch(3, 7)


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert between(0, 12, num_samples=5, seed=7) == [2, 0, 4, 1, 3, 3, 0, 2, 1, 4, 0, 2]


def test_a_process_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="process 0 of 3 with batches of 2"):
        Batches(0, 10, num_samples=5, batch_size=2, seed=0, world_size=3)
    with pytest.raises(ValueError, match="process 2 of 2"):
        Batches(0, 10, num_samples=5, batch_size=2, seed=0, rank=2, world_size=2)
