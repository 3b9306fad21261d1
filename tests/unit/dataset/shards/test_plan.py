"""The plan of the shards, made from digests block by block, is the one that whole rows in memory would give."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data.canonical import digest_of
from sp_data.dataset.curate.splits import SPLITS
from sp_data.dataset.shards import plan as shard_plan
from sp_data.dataset.shards.plan import MADE_OF, KeptSamples, from_hex, hex_of, rows_of, sample_of, samples_in


def table_of(numbers: list[int]) -> pa.Table:
    rows = [
        {
            "title": f"File:Kid {number}.png",
            "sha1": f"{number:040x}",
            "caption": f"kid {number}",
            "variants": "[]",
            "split": SPLITS[number % 7 % 3],
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in MADE_OF]))


def plainly(table: pa.Table, placed: set[str], size: int, first: int) -> list[tuple[int, str, list[str]]]:
    """The same plan from whole rows: by split, mixed by the titles' hashes, cut into shards."""
    shards: list[tuple[int, str, list[str]]] = []
    for split in SPLITS:
        rows = [row for row in table.to_pylist() if row["split"] == split and sample_of(row) not in placed]
        rows.sort(key=lambda row: hashlib.sha256(row["title"].encode()).digest())
        titles = [row["title"] for row in rows]
        for start in range(0, len(titles), size):
            shards.append((first + len(shards), split, titles[start : start + size]))
    return shards


@settings(deadline=None)
@given(
    numbers=st.lists(st.integers(0, 300), unique=True, max_size=60),
    placed=st.sets(st.integers(0, 300)),
    size=st.integers(2, 9),
    first=st.integers(0, 3),
    block=st.integers(1, 20),
)
def test_new_shards_hold_what_is_not_placed_in_the_order_of_whole_rows(
    numbers: list[int], placed: set[int], size: int, first: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = table_of(sorted(numbers))
    kept = KeptSamples(table.to_batches(max_chunksize=block))
    places = kept.places(samples_in(table_of(sorted(placed))))
    assert {number for number, place in zip(sorted(placed), places, strict=True) if place >= 0} == placed & set(numbers)
    taken = np.zeros(len(kept), dtype=bool)
    taken[places[places >= 0]] = True
    shards = kept.plan(taken, size, first)
    folder = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "SHARDS_A_SPOOL", 2)
        planned = [
            (shard.number, shard.split, rows["title"].to_pylist())
            for shard, rows in rows_of(shards, table.to_batches(max_chunksize=block), len(kept), folder)
        ]
    placed_samples = {sample_of(row) for row in table_of(sorted(placed)).to_pylist()}
    assert planned == plainly(table, placed_samples, size, first)
    assert not list(folder.iterdir())


def test_a_sample_is_named_by_what_it_is() -> None:
    row: dict[str, Any] = table_of([3]).to_pylist()[0]
    assert sample_of(row) == digest_of([row[name] for name in MADE_OF])[:32]
    for name in MADE_OF:
        assert sample_of({**row, name: json.dumps(["other"])}) != sample_of(row)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5))
def test_samples_keep_their_zeros_on_the_way_through_hex(samples: list[bytes]) -> None:
    texts = [sample.hex() for sample in samples]
    assert hex_of(from_hex(texts)) == texts


def test_however_many_shards_there_are_few_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_plan, "MAX_SPOOLS", 2)
    monkeypatch.setattr(shard_plan, "SHARDS_A_SPOOL", 1)
    table = table_of(list(range(30)))
    kept = KeptSamples(table.to_batches())
    shards = kept.plan(np.zeros(30, dtype=bool), 2, 0)
    following = rows_of(shards, table.to_batches(), 30, tmp_path)
    planned = [next(following)]
    assert len(list(tmp_path.iterdir())) == 2 < len(shards)
    planned += following
    titles = table["title"].to_pylist()
    assert [rows["title"].to_pylist() for _, rows in planned] == [
        [titles[row] for row in shard.rows] for shard in shards
    ]
