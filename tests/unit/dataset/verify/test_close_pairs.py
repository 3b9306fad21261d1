"""Pictures that CLIP finds nearly the same: every pair once, across shards too, without tombstones and zero rows."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sp_data.dataset.verify import close_pairs
from sp_data.dataset.verify.close_pairs import find_close_pairs
from sp_data.dataset.verify.context import Dataset
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.runtime.jobs import ThreadRunner

LAYOUT = KeyLayout(5, 1)


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Dataset, dict[str, np.ndarray]]:
    """Three shards of six rows in four dimensions, row 2 of each shard zero; and the rows by key."""
    dataset = Dataset(str(tmp_path), "kids", LAYOUT, "tiny", 4, "float16", deep=False)
    lake, dice, rows_of = Lake(dataset.url, dataset.name), np.random.default_rng(0), {}
    for shard in range(3):
        rows = dice.normal(size=(6, 4))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        rows[2] = 0
        path = Path(lake.full(dataset.reordered_path("img_emb", LAYOUT.shard_name(shard))))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows)
        rows_of |= {LAYOUT.key(shard, index): row.astype(np.float32) for index, row in enumerate(rows) if row.any()}
    return dataset, rows_of


def plainly(rows_of: dict[str, np.ndarray], min_cosine: float) -> list[tuple[str, str]]:
    pairs = [
        (float(rows_of[first] @ rows_of[second]), first, second) for first, second in combinations(sorted(rows_of), 2)
    ]
    return [(first, second) for cosine, first, second in sorted(pairs, reverse=True) if cosine >= min_cosine]


@pytest.mark.parametrize("min_cosine", [0.5, 0.9])
def test_each_pair_comes_once_the_nearest_first(
    dataset: tuple[Dataset, dict[str, np.ndarray]], min_cosine: float
) -> None:
    three_shards, rows_of = dataset
    close = find_close_pairs(three_shards, [0, 1, 2], {}, min_cosine, ThreadRunner(2))
    assert close.num_pairs == len(close.nearest) == len(plainly(rows_of, min_cosine)) > 0
    assert [(first, second) for _, first, second in close.nearest] == plainly(rows_of, min_cosine)


def test_a_row_with_a_tombstone_is_in_no_pair(dataset: tuple[Dataset, dict[str, np.ndarray]]) -> None:
    three_shards, rows_of = dataset
    dead = {1: frozenset({"000010", "000014"})}
    alive = {key: row for key, row in rows_of.items() if key not in dead[1]}
    close = find_close_pairs(three_shards, [0, 1, 2], dead, 0.5, ThreadRunner(2))
    assert [(first, second) for _, first, second in close.nearest] == plainly(alive, 0.5)


def test_the_list_is_short_and_the_count_is_whole(
    dataset: tuple[Dataset, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_shards, rows_of = dataset
    monkeypatch.setattr(close_pairs, "MAX_LISTED", 2)
    close = find_close_pairs(three_shards, [0, 1, 2], {}, 0.5, ThreadRunner(2))
    assert [(first, second) for _, first, second in close.nearest] == plainly(rows_of, 0.5)[:2]
    assert close.num_pairs == len(plainly(rows_of, 0.5))
