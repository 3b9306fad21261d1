"""Search: the nearest pictures by vector, with and without an index; nothing dead, zero or forgotten is found."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data import manifest as manifests
from sp_data.errors import DataError, StageError, StageNotDone, UsageError
from sp_data.generation import search
from sp_data.generation.search import DatasetIndex
from sp_data.generation.search_index import index_folder
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import demo
from sp_data.wiki.forgotten import Forgotten, write_forgotten

DIM = 4
AXES = np.eye(DIM, dtype=np.float32)
Shard = tuple[str, list[npt.NDArray[np.float32] | None]]
"""Split and rows; None: a picture without an embedding, whose row is zero."""


def dataset(lake: Lake, shards: list[Shard], tombstones: list[str] | None = None) -> Manifest:
    """A verified dataset of these rows, layout 5+2: key 0000301 is row 1 of shard 3. Its tars do not exist."""
    entries = []
    for number, (split, rows) in enumerate(shards):
        files = {"tar": f"shards/{number:05d}.tar", "parquet": f"shards/{number:05d}.parquet"}
        files |= {kind: f"reordered/c/{kind}/{kind}_{number:05d}.npy" for kind in ("img_emb", "text_emb")}
        values = np.array([np.zeros(DIM) if row is None else row for row in rows], np.float16).reshape(-1, DIM)
        for kind in ("img_emb", "text_emb"):
            out = io.BytesIO()
            np.save(out, values)
            lake.write_bytes(files[kind], out.getvalue())
        keys = [f"{number:05d}{index:02d}" for index in range(len(rows))]
        texts = ("key", "title", "sha1", "page", "licence", "uploader", "url", "caption")
        columns = {name: [f"{name} {key}" for key in keys] for name in texts}
        columns |= {"key": keys, "status": ["success"] * len(keys)}
        table = pa.table({**columns, "revision": pa.array(range(len(keys)), pa.int64())})
        out = io.BytesIO()
        pq.write_table(table, out)
        lake.write_bytes(files["parquet"], out.getvalue())
        entry = {name: {"path": path, "sha256": f"{number}{name}"} for name, path in files.items()}
        entries.append(
            {"number": number, "split": split, "num_rows": len(rows), "num_samples": len(rows), **entry},
        )
    details = {"layout": "5+2", "clip": "c", "dim": DIM, "tombstones": tombstones or [], "shards": entries}
    counts = Counts(in_=0, out=0)
    return Manifest.make(stage="verify", version=1, recipe={}, inputs={}, counts=counts, files=[], details=details)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


def keys(index: DatasetIndex, query: npt.NDArray[np.float32], k: int, split: str | None = None) -> list[str]:
    return [neighbour.key for neighbour in index.nearest(query[None], k, split)[0]]


def test_the_nearest_come_first_with_all_that_is_known_of_them(lake: Lake) -> None:
    near = np.array([0.8, 0.6, 0, 0], np.float32)
    with DatasetIndex(dataset(lake, [("train", [AXES[0], AXES[1]]), ("val", [near])]), lake) as index:
        (found,) = index.nearest(AXES[:1], 3)
    assert [(neighbour.key, neighbour.cosine, neighbour.split) for neighbour in found] == [
        ("0000000", 1.0, "train"),
        ("0000100", pytest.approx(0.8, abs=1e-3), "val"),
        ("0000001", 0.0, "train"),
    ]
    assert found[0].model_dump(include={"title", "page", "revision", "licence", "uploader", "url", "caption"}) == {
        **{name: f"{name} 0000000" for name in ("title", "page", "licence", "uploader", "url", "caption")},
        "revision": 0,
    }
    assert found[1].tar == "shards/00001.tar"


@pytest.mark.parametrize("way", ["product", "index"])
def test_a_tombstone_and_a_row_of_zeros_are_never_found(lake: Lake, way: search.Way) -> None:
    verified = dataset(lake, [("train", [AXES[0], None, AXES[1], AXES[2]])], tombstones=["0000000"])
    with DatasetIndex(verified, lake, way) as index:
        assert keys(index, AXES[0], 10) == ["0000002", "0000003"]


@pytest.mark.parametrize("way", ["product", "index"])
def test_a_split_is_searched_alone(lake: Lake, way: search.Way) -> None:
    train = [AXES[0] + index / 100 * AXES[1] for index in range(20)]
    with DatasetIndex(
        dataset(lake, [("train", train), ("val", [AXES[2], AXES[0] * 0.6 + AXES[3] * 0.8])]), lake, way
    ) as index:
        assert keys(index, AXES[0], 1, "val") == ["0000101"]
        assert len(keys(index, AXES[0], 50, "train")) == 20
        with pytest.raises(UsageError, match="has no split 'test': it has train, val"):
            index.nearest(AXES[:1], 1, "test")


rows = st.one_of(
    st.none(),
    st.lists(st.integers(-8, 8), min_size=DIM, max_size=DIM)
    .filter(any)
    .map(lambda row: np.array(row, np.float32) / np.linalg.norm(row)),
)
shards = st.tuples(st.sampled_from(["train", "val"]), st.lists(rows, max_size=6))


@given(
    st.lists(shards, min_size=1, max_size=4),
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 5))),
    st.lists(st.integers(-8, 8), min_size=DIM, max_size=DIM).filter(any),
    st.integers(1, 30),
)
@settings(max_examples=40)
def test_index_and_product_agree_and_find_all_that_lives(
    shards: list[Shard], dead: set[tuple[int, int]], query: list[int], k: int
) -> None:
    there = {(shard, row) for shard, (_, of_shard) in enumerate(shards) for row in range(len(of_shard))}
    alive = {place for place in there - dead if shards[place[0]][1][place[1]] is not None}
    vector = np.array(query, np.float32) / np.linalg.norm(query)
    with TemporaryDirectory() as folder:
        lake = Lake(folder, "kids")
        verified = dataset(lake, shards, [f"{shard:05d}{row:02d}" for shard, row in sorted(dead & there)])
        with DatasetIndex(verified, lake, "product") as product, DatasetIndex(verified, lake, "index") as index:
            (exact,) = product.nearest(vector[None], k)
            if not alive:
                with pytest.raises(StageError, match="nothing to index"):
                    index.nearest(vector[None], k)
                assert exact == []
                return
            (approximate,) = index.nearest(vector[None], k)
    assert len(exact) == len(approximate) == min(k, len(alive))
    assert exact[0].cosine == pytest.approx(approximate[0].cosine, abs=1e-3)
    for found in (exact, approximate):
        assert {(int(one.key[:5]), int(one.key[5:])) for one in found} <= alive
        assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)
    best = max(float(vector @ shards[shard][1][row]) for shard, row in alive)  # type: ignore[operator]
    assert exact[0].cosine == pytest.approx(best, abs=2e-3)


def test_the_index_of_a_large_dataset_is_clip_retrievals_and_agrees(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0).normal(size=(60, DIM)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    verified = dataset(lake, [("train", list(random[:40])), ("val", list(random[40:]))], tombstones=["0000003"])
    monkeypatch.setattr(search, "PRODUCT_ROWS", 50)
    with DatasetIndex(verified, lake) as index, DatasetIndex(verified, lake, "product") as product:
        assert index.uses_index
        near, exact = index.hits(random, 2), product.hits(random, 2)
    assert lake.exists(f"{index_folder(verified.digest)}/text.index")
    assert near.numbers[:, 0].tolist() == exact.numbers[:, 0].tolist()
    assert 3 not in near.numbers
    assert np.abs(near.cosines - exact.cosines).max() < 1e-3


@pytest.mark.parametrize("way", ["product", "index"])
def test_a_remote_lake_is_searched_too(tmp_path: Path, way: search.Way) -> None:
    remote = Lake(f"memory://{tmp_path}", "kids")
    with DatasetIndex(dataset(remote, [("train", [AXES[0], AXES[1]])]), remote, way) as index:
        assert keys(index, AXES[1], 2) == ["0000001", "0000000"]


def test_an_index_is_made_once_and_again_after_a_picture_was_forgotten(lake: Lake) -> None:
    verified = dataset(lake, [("train", [AXES[0], AXES[1]])])
    manifests.publish(lake, verified)
    record = f"{index_folder(verified.digest)}/index.json"
    with DatasetIndex(verified, lake, "index") as index:
        assert keys(index, AXES[0], 1) == ["0000000"]
        first = Path(lake.full(record)).stat().st_mtime_ns
    with DatasetIndex(verified, lake, "index") as index:
        index.build()
        assert Path(lake.full(record)).stat().st_mtime_ns == first
        assert index.is_current()
        # Before any stage ran: the dataset has no tombstone yet.
        write_forgotten(lake, Forgotten().joined([("title 0000000", "")], "2026-11-26T00:00:00Z"))
        assert not index.is_current()
    for way in ("index", "product"):
        with DatasetIndex(verified, lake, way) as index:  # type: ignore[arg-type]
            assert keys(index, AXES[0], 5) == ["0000001"]
            with pytest.raises(UsageError, match="no picture with the key '0000000'"):
                index.thumbnail("0000000")


def test_an_index_that_was_cut_is_made_again(lake: Lake) -> None:
    verified = dataset(lake, [("train", [AXES[0], AXES[1]])])
    path = Path(lake.full(f"{index_folder(verified.digest)}/image.index"))
    with DatasetIndex(verified, lake, "index") as index:
        index.build()
    path.write_bytes(path.read_bytes()[:-4])
    with DatasetIndex(verified, lake, "index") as index:
        assert keys(index, AXES[1], 1) == ["0000001"]


def test_what_cannot_be_searched_is_refused(lake: Lake) -> None:
    verified = dataset(lake, [("train", [AXES[0]])])
    with pytest.raises(StageNotDone, match=r"no verified dataset yet; run `sp-data run kids --until verify"):
        DatasetIndex.open(demo(), lake)
    manifests.publish(lake, verified)
    with pytest.raises(StageError, match=r"was embedded by c, and the recipe's CLIP is tiny"):
        DatasetIndex.open(demo(), lake)
    with DatasetIndex(verified, lake) as index:
        with pytest.raises(UsageError, match="k is 0"):
            index.nearest(AXES[:1], 0)
        with pytest.raises(DataError, match=r"expects \(n, 4\)"):
            index.nearest(AXES[:1, :2], 1)
        with pytest.raises(UsageError, match="no picture with the key 'x'"):
            index.thumbnail("x")
        assert index.nearest(np.zeros((0, DIM), np.float32), 3) == []
        lake.remove(verified.details["shards"][0]["img_emb"]["path"])
        with pytest.raises(StageNotDone, match=r"img_emb_00000\.npy is missing; `sp-data run kids"):
            index.nearest(AXES[:1], 1)
