"""Keys and their layouts: they round-trip for every width, and a wrong reading is refused, not guessed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.dataset.reorder.partitions import key_numbers
from sp_data.errors import LayoutError
from sp_data.keys import KeyLayout, infer_layout, possible_readings

layouts = st.builds(KeyLayout, st.integers(1, 9), st.integers(0, 9))


@given(layouts, st.data())
def test_a_key_round_trips_for_every_width(layout: KeyLayout, data: st.DataObject) -> None:
    shard = data.draw(st.integers(0, 10**layout.shard_width - 1))
    index = data.draw(st.integers(0, 10**layout.index_width - 1))
    key = layout.key(shard, index)
    assert len(key) == layout.width
    assert layout.split(key) == (shard, index)
    shards, indices = layout.split_numbers(key_numbers(pa.array([key]), layout.width))
    assert (shards.tolist(), indices.tolist()) == ([shard], [index])
    assert KeyLayout.parse(str(layout)) == layout


@given(layouts, st.data())
def test_keys_sort_as_their_shards_and_indices_do(layout: KeyLayout, data: st.DataObject) -> None:
    pairs = st.tuples(st.integers(0, 10**layout.shard_width - 1), st.integers(0, 10**layout.index_width - 1))
    drawn = data.draw(st.lists(pairs, min_size=1))
    assert [layout.split(key) for key in sorted(layout.key(*pair) for pair in drawn)] == sorted(drawn)


@pytest.mark.parametrize(
    ("samples_per_shard", "layout"), [(10, "5+1"), (100, "5+2"), (150, "5+3"), (10_000, "5+4"), (10_001, "5+5")]
)
def test_the_index_width_is_img2datasets(samples_per_shard: int, layout: str) -> None:
    assert str(KeyLayout.of_shards(samples_per_shard)) == layout


def test_the_key_of_the_design() -> None:
    assert KeyLayout(5, 4).key(7, 42) == "000070042"
    assert KeyLayout(5, 4).shard_name(7) == "00007"


@pytest.mark.parametrize("key", ["00007004", "0000700421", "00007004x", "00007004²", "", "-00070042"])
def test_a_foreign_key_is_refused(key: str) -> None:
    with pytest.raises(LayoutError, match="9 digits"):
        KeyLayout(5, 4).split(key)
    with pytest.raises(LayoutError, match="9 digits"):
        key_numbers(pa.array(["000070042", key]), 9)


@pytest.mark.parametrize(("shard", "index"), [(100_000, 0), (0, 10_000), (-1, 0), (0, -1)])
def test_a_number_beyond_its_width_is_refused(shard: int, index: int) -> None:
    with pytest.raises(LayoutError):
        KeyLayout(5, 4).key(shard, index)


@pytest.mark.parametrize("text", ["", "5", "5+", "+4", "5-4", "a+b", "0+4", "12+12", "5+4+1"])
def test_a_layout_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(LayoutError):
        KeyLayout.parse(text)


def keys_of(layout: KeyLayout, num_shards: int, size: int) -> tuple[npt.NDArray[np.int64], int]:
    """The keys of whole shards as numbers, and their digits."""
    keys = [layout.key(shard, index) for shard in range(num_shards) for index in range(size)]
    return key_numbers(pa.array(keys), layout.width), layout.width


def test_img2datasets_own_layout_is_inferred() -> None:
    assert infer_layout(*keys_of(KeyLayout(5, 2), 21, 100)) == KeyLayout(5, 2)
    assert infer_layout(*keys_of(KeyLayout(5, 4), 2, 5000)) == KeyLayout(5, 4)


def test_keys_that_are_not_img2datasets_are_refused_with_every_reading_shown() -> None:
    with pytest.raises(LayoutError, match=r"--layout .*3\+4.*4\+3.*6\+1"):
        infer_layout(*keys_of(KeyLayout(3, 4), 2, 5000))


def test_every_reading_is_listed() -> None:
    readings = possible_readings(np.array([0, 101]), 7)
    assert [str(reading.layout) for reading in readings] == ["1+6", "2+5", "3+4", "4+3", "5+2", "6+1"]
    assert (readings[4].num_shards, readings[4].last_shard, readings[4].last_index) == (2, 1, 1)


def test_no_keys_are_no_numbers() -> None:
    numbers = key_numbers(pa.array([], pa.string()), 9)
    assert (numbers.dtype, len(numbers)) == (np.int64, 0)
