from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from sp_data.errors import DataError
from sp_data.training.measures.cmmd import cmmd, cmmd_of_pairs

Rows = npt.NDArray[np.float64]


def around(centre: Rows, count: int, spread: float, seed: int) -> Rows:
    return centre + spread * np.random.default_rng(seed).standard_normal((count, len(centre)))


def as_the_paper_has_it(x: Rows, y: Rows) -> float:
    """Its code's formula (i = j left in), word by word in float64, for rows of unit length."""
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    k_xx, k_yy, k_xy = (
        np.exp(-(np.square(left[:, None] - right[None]).sum(-1)) / (2 * 10**2)).mean()
        for left, right in ((x, x), (y, y), (x, y))
    )
    return float(1000 * (k_xx + k_yy - 2 * k_xy))


AXIS = np.eye(8)[0]


def test_two_pictures_at_right_angles_to_two_others_have_the_distance_worked_out_by_hand() -> None:
    drawn, held_out = np.repeat(np.eye(2)[:1], 3, axis=0), np.repeat(np.eye(2)[1:], 3, axis=0)
    # k is 1 within each set, and exp(-2 / 200) across.
    assert cmmd(drawn, held_out).value == pytest.approx(1000 * (1 + 1 - 2 * np.exp(-0.01)), rel=1e-6)


def test_without_its_bias_it_is_the_papers_figure() -> None:
    x, y = around(AXIS, 40, 0.5, seed=1), around(AXIS + 0.3, 30, 0.5, seed=2)
    own = cmmd(x, y)
    spread_of_x = cmmd(y, x).one_picture
    assert as_the_paper_has_it(x, y) == pytest.approx(
        # Leaving i = j in moves a mean over pairs towards k = 1 by 1/n.
        own.value + spread_of_x / 40 + own.one_picture / 30,
        rel=1e-5,
    )


def test_length_and_dtype_of_the_rows_do_not_matter() -> None:
    x, y = around(AXIS, 20, 0.5, seed=1), around(AXIS + 0.3, 20, 0.5, seed=2)
    assert cmmd(7 * x, y / 3).value == pytest.approx(cmmd(x, y).value, rel=1e-5)
    assert cmmd(x.astype(np.float16), y).value == pytest.approx(cmmd(x, y).value, rel=2e-2)


def test_equal_distributions_give_zero_on_average_however_few_the_pictures() -> None:
    values = [cmmd(around(AXIS, 12, 0.5, seed), around(AXIS, 9, 0.5, 1000 + seed)).value for seed in range(400)]
    biased = [as_the_paper_has_it(around(AXIS, 12, 0.5, seed), around(AXIS, 9, 0.5, 1000 + seed)) for seed in range(50)]
    of_the_mean = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * of_the_mean
    assert np.mean(biased) > 20 * of_the_mean


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_error_bar_is_what_other_pictures_would_change(shift: float) -> None:
    measured = [cmmd(around(AXIS + shift, 30, 0.5, seed), around(AXIS, 40, 0.5, 1000 + seed)) for seed in range(300)]
    real = np.std([one.value for one in measured])
    claimed = np.sqrt(np.mean([one.error**2 for one in measured]))
    # The jackknife is too large rather than too small, by half at most where the distributions are equal.
    assert 0.9 * real < claimed < 1.6 * real


def test_pictures_like_their_originals_look_no_closer_than_they_are() -> None:
    pairs, mixed = [], []
    for seed in range(300):
        originals = around(AXIS, 10, 0.5, seed)
        drawn = originals + 0.1 * np.random.default_rng(5000 + seed).standard_normal(originals.shape)
        pairs.append(cmmd_of_pairs(drawn, originals).value)
        mixed.append(cmmd(drawn, originals).value)
    of_the_mean = np.std(pairs) / np.sqrt(len(pairs))
    # Noise of 0.1 hardly moves the distribution.
    assert abs(np.mean(pairs)) < 4 * of_the_mean + 0.01
    assert np.mean(mixed) < -0.2


def test_the_error_bar_of_pairs_is_what_other_pairs_would_change() -> None:
    measured = []
    for seed in range(300):
        originals = around(AXIS, 30, 0.5, seed)
        drawn = 0.5 * originals + around(AXIS + 0.3, 30, 0.3, 5000 + seed)
        measured.append(cmmd_of_pairs(drawn, originals))
    real = np.std([one.value for one in measured])
    assert 0.9 * real < np.sqrt(np.mean([one.error**2 for one in measured])) < 1.6 * real


@pytest.mark.parametrize("num_different", [5, 20])
def test_a_few_pictures_over_and_over_lie_as_far_as_their_number_says(num_different: int) -> None:
    rng = np.random.default_rng(0)
    relative = []
    for seed in range(60):
        few = around(AXIS, num_different, 0.5, seed)
        distance = cmmd(few[rng.integers(num_different, size=400)], around(AXIS, 400, 0.5, 1000 + seed))
        assert distance.relative is not None
        relative.append(distance.relative)
    assert np.mean(relative) == pytest.approx(1 / num_different, rel=0.2)


def test_far_needs_more_than_the_error_bar() -> None:
    held_out = around(AXIS, 300, 0.5, seed=1)
    assert cmmd(around(AXIS + 0.3, 300, 0.5, seed=2), held_out).far
    assert not cmmd(around(AXIS, 300, 0.5, seed=3), held_out).far
    few = cmmd(around(AXIS + 0.3, 4, 0.5, seed=3), held_out[:4])
    assert few.value > few.one_picture / 40
    assert not few.far


def test_the_sentence_says_of_how_many_pictures_the_distance_would_be() -> None:
    held_out = around(AXIS, 300, 0.5, seed=1)
    five = cmmd(np.repeat(around(AXIS, 5, 0.5, seed=2), 60, axis=0), held_out)
    assert five.relative is not None
    assert f"far: as {round(1 / five.relative)} of them would be, drawn over and over" in str(five)
    assert "far" not in str(cmmd(around(AXIS, 300, 0.5, seed=3), held_out))


def test_below_500_pictures_the_sentence_says_how_far_to_trust_it() -> None:
    held_out = around(AXIS, 500, 0.5, seed=1)
    assert "±" in str(cmmd(held_out, held_out))
    assert "below 500" not in str(cmmd(held_out, held_out))
    assert "499 held-out ones; below 500" in str(cmmd(held_out, held_out[:499]))


def test_chunks_do_not_change_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = around(AXIS, 50, 0.5, seed=1), around(AXIS + 0.3, 50, 0.5, seed=2)
    whole, pairs = cmmd(x, y[:33]), cmmd_of_pairs(x, y)
    monkeypatch.setattr("sp_data.training.measures.embeddings.CHUNK", 7)
    for chunked, at_once in ((cmmd(x, y[:33]), whole), (cmmd_of_pairs(x, y), pairs)):
        assert chunked.value == pytest.approx(at_once.value, rel=1e-5)
        assert chunked.error == pytest.approx(at_once.error, rel=1e-5)


def test_memory_grows_with_the_pictures_and_not_with_their_square() -> None:
    rows = np.random.default_rng(0).standard_normal((6_000, 16)).astype(np.float32)
    tracemalloc.start()
    try:
        cmmd(rows, rows[::-1])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # All cosines at once are 144 MB, and the kernel 288 MB.
    assert peak_bytes < 120e6


@pytest.mark.parametrize(
    ("drawn", "held_out", "message"),
    [
        (np.ones((2, 4)), np.ones((5, 4)), r"drawn embeddings have the shape \(2, 4\)"),
        (np.ones((5, 4)), np.ones((5, 3)), "differ in width"),
        (np.ones((5, 4)), np.diag([1.0, 1, 0, 1]), "held-out embedding 2 is zero"),
        (np.full((5, 4), np.nan), np.ones((5, 4)), "drawn embedding 0 is zero or not finite"),
    ],
)
def test_rows_that_are_no_embeddings_are_refused_by_name(drawn: Rows, held_out: Rows, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cmmd(drawn, held_out)


def test_pairs_of_unequal_number_are_refused() -> None:
    with pytest.raises(DataError, match="row by row"):
        cmmd_of_pairs(np.ones((5, 4)), np.ones((4, 4)))
