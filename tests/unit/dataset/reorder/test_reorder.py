"""Reordering: row 42 is the picture with index 42, whatever order inference finished in."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data.dataset.reorder import plan
from sp_data.dataset.reorder.folder import reorder_folder
from sp_data.dataset.reorder.gather import first_not_finite
from sp_data.dataset.reorder.layout import layout_of
from sp_data.errors import CorruptFile, DuplicateKey, KeyOutsideShard, LayoutError, StageError, StageNotDone
from sp_data.keys import KeyLayout

LAYOUT = KeyLayout(5, 2)


def write_partition(
    root: Path, number: int | str, keys: list[str], *, dtype: str = "float16", kind: str = "img_emb"
) -> None:
    """A partition as clip-retrieval writes it; the row of key k is [k, k + 1/2], so that a reader can check by eye."""
    rows = np.array([[int(key), int(key) + 0.5] for key in keys], dtype=dtype).reshape(len(keys), 2)
    for folder in (kind, "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    np.save(root / kind / f"{kind}_{number}.npy", rows)
    pq.write_table(
        pa.table({"image_path": pa.array(keys, pa.string())}), root / "metadata" / f"metadata_{number}.parquet"
    )


def reordered(root: Path, shard: str, kind: str = "img_emb") -> list[list[float]]:
    return np.load(root / "out" / kind / f"{kind}_{shard}.npy").tolist()


def run(root: Path, layout: KeyLayout | None = LAYOUT) -> None:
    reorder_folder(root / "img_emb", root / "metadata", root / "out", layout, threads=1)


def test_rows_come_in_the_order_of_their_index(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000102", "0000100", "0000101"])
    run(tmp_path)
    assert reordered(tmp_path, "00001") == [[100, 100.5], [101, 101.5], [102, 102.5]]


def test_a_shard_split_over_two_partitions_is_joined(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000003", "0000000"])
    write_partition(tmp_path, 1, ["0000001", "0000002"])
    run(tmp_path)
    assert reordered(tmp_path, "00000") == [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]]


def test_gaps_and_trailing_gaps_are_zero_and_the_dtype_stays(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000001", "0000003", "0000100"])
    run(tmp_path)
    assert reordered(tmp_path, "00000") == [[0, 0], [1, 1.5], [0, 0], [3, 3.5]]
    assert reordered(tmp_path, "00001") == [[100, 100.5], [0, 0], [0, 0], [0, 0]]
    assert np.load(tmp_path / "out/img_emb/img_emb_00000.npy").dtype == np.float16


def test_a_shard_of_which_nothing_was_embedded_gets_a_file_of_zeros(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000001", "0000201"])
    run(tmp_path)
    assert reordered(tmp_path, "00001") == [[0, 0], [0, 0]]


def test_both_kinds_are_reordered_from_one_folder(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000001", "0000000"])
    write_partition(tmp_path, 0, ["0000001", "0000000"], kind="text_emb")
    result = reorder_folder(tmp_path, tmp_path / "metadata", tmp_path / "out", LAYOUT, threads=1)
    assert result.kinds == ("img_emb", "text_emb")
    assert reordered(tmp_path, "00000") == reordered(tmp_path, "00000", "text_emb") == [[0, 0.5], [1, 1.5]]


def test_the_widths_are_inferred_where_the_keys_prove_them(tmp_path: Path) -> None:
    keys = [LAYOUT.key(shard, index) for shard in range(3) for index in range(12)]
    write_partition(tmp_path, 0, keys[::-1])
    run(tmp_path, layout=None)
    assert sorted(path.name for path in (tmp_path / "out/img_emb").iterdir()) == [
        "img_emb_00000.npy",
        "img_emb_00001.npy",
        "img_emb_00002.npy",
    ]


def test_widths_that_nothing_proves_are_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0099901", "0000000"], dtype="float32")
    with pytest.raises(LayoutError, match="--layout"):
        run(tmp_path, layout=None)
    assert not (tmp_path / "out").exists()


def test_a_key_that_comes_twice_is_named_with_both_places(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000001", "0000000"])
    write_partition(tmp_path, 1, ["0000001"])
    with pytest.raises(DuplicateKey, match=r"key 0000001 comes twice: row 0 of img_emb_0\.npy and row 0 of img_emb_1"):
        run(tmp_path)


def test_a_key_that_comes_again_far_behind_is_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "KEYS_A_BLOCK", 2)  # the second key is read when the first has its slot
    test_a_key_that_comes_twice_is_named_with_both_places(tmp_path)


def test_a_partition_without_its_metadata_is_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000"])
    write_partition(tmp_path, 1, ["0000001"])
    (tmp_path / "metadata/metadata_1.parquet").unlink()
    with pytest.raises(CorruptFile, match=r"img_emb_1\.npy has no partner"):
        run(tmp_path)


def test_files_left_by_a_run_with_other_partitions_are_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 1, ["0000000"])
    write_partition(tmp_path, "01", ["0000001"])
    with pytest.raises(CorruptFile, match="one number"):
        run(tmp_path)


def test_rows_that_do_not_match_their_metadata_are_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000", "0000001"])
    np.save(tmp_path / "img_emb/img_emb_0.npy", np.ones((3, 2), np.float16))
    with pytest.raises(CorruptFile, match=r"names 2 rows, .* has 3"):
        run(tmp_path)


def test_another_dtype_in_one_partition_is_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000"])
    write_partition(tmp_path, 1, ["0000001"], dtype="float64")
    with pytest.raises(CorruptFile, match=r"img_emb_1\.npy has 2 numbers a row, float64: expected 2, float16"):
        run(tmp_path)


def test_nan_is_refused_by_key(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000", "0000001"])
    np.save(tmp_path / "img_emb/img_emb_0.npy", np.array([[1, 1], [np.nan, 1]], np.float16))
    with pytest.raises(CorruptFile, match="0000001 holds NaN"):
        run(tmp_path)


def test_a_cut_file_is_refused_by_name(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000"])
    file = tmp_path / "img_emb/img_emb_0.npy"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CorruptFile, match=r"img_emb_0\.npy is no whole \.npy"):
        run(tmp_path)


def test_partitions_without_a_row_are_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, [])
    with pytest.raises(CorruptFile, match="hold no row"):
        run(tmp_path)


@pytest.mark.parametrize("keys", [pa.array([0, 1]), pa.array(["0000000", None])])
def test_a_key_that_is_no_text_is_refused_by_row(tmp_path: Path, keys: pa.Array) -> None:
    write_partition(tmp_path, 0, ["0000000", "0000001"])
    pq.write_table(pa.table({"image_path": keys}), tmp_path / "metadata/metadata_0.parquet")
    with pytest.raises(CorruptFile, match=r"metadata_0\.parquet row \d names the key .*: expected text"):
        run(tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StageNotDone, match=r"holds no img_emb_N\.npy"):
        run(tmp_path)


def test_an_output_with_files_of_another_layout_is_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000001", "0000000"])
    run(tmp_path)
    run(tmp_path)
    with pytest.raises(StageError, match=r"holds img_emb_00000\.npy, which this layout does not make"):
        run(tmp_path, KeyLayout(3, 4))


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_any_order_over_any_partitions_gives_each_key_its_own_row(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: set[tuple[int, int]],
    random: Random,
    num_partitions: int,
) -> None:
    root = tmp_path_factory.mktemp("any")
    layout = KeyLayout(5, 1)
    keys = [layout.key(*pair) for pair in pairs]
    random.shuffle(keys)
    for number in range(num_partitions):
        write_partition(root, number, keys[number::num_partitions], dtype="float32")
    run(root, layout)
    for shard in range(max(shard for shard, _ in pairs) + 1):
        rows = reordered(root, layout.shard_name(shard))
        for index, row in enumerate(rows):
            number = int(layout.key(shard, index))
            assert row == ([number, number + 0.5] if (shard, index) in pairs else [0, 0])


def write_shard(root: Path, name: str, keys: list[str]) -> None:
    """A shard's parquet as img2dataset leaves it, rows in the order in which the downloads ended."""
    (root / "shards").mkdir(exist_ok=True)
    pq.write_table(pa.table({"key": keys[::-1]}), root / "shards" / f"{name}.parquet")


def test_img2datasets_folder_proves_layout_and_sizes(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0101", "0000"])
    write_shard(tmp_path, "00", ["0000", "0001", "0002"])
    write_shard(tmp_path, "01", ["0100", "0101"])
    result = reorder_folder(
        tmp_path / "img_emb", tmp_path / "metadata", tmp_path / "out", shards=tmp_path / "shards", threads=1
    )
    assert (str(result.layout), result.num_zero_rows) == ("2+2", 3)
    assert reordered(tmp_path, "00") == [[0, 0.5], [0, 0], [0, 0]]
    assert reordered(tmp_path, "01") == [[0, 0], [101, 101.5]]
    assert str(layout_of(tmp_path / "shards")).startswith("2+2: 2 shards up to 01 of 2 to 3 rows, 5 keys; proved by")


def test_embeddings_of_a_picture_that_no_shard_has_are_refused(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000", "0002"])
    write_shard(tmp_path, "00", ["0000", "0001"])
    with pytest.raises(KeyOutsideShard, match=r"key 0002 \(row 1 of img_emb_0\.npy\) has index 2, beyond the 2 rows"):
        reorder_folder(tmp_path / "img_emb", tmp_path / "metadata", tmp_path / "out", shards=tmp_path / "shards")


def test_a_shard_with_a_key_of_another_shard_proves_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path, "00", ["0000", "0101"])
    with pytest.raises(LayoutError, match=r"00\.parquet holds key 0101, which does not begin with 00"):
        layout_of(tmp_path / "shards")


def test_the_layout_of_metadata_alone_is_shown_with_what_it_was_inferred_from(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, [LAYOUT.key(shard, index) for shard in range(3) for index in range(12)])
    inferred = layout_of(tmp_path)
    assert (inferred.layout, inferred.exact, inferred.num_keys) == (LAYOUT, False, 36)
    assert "as far as the highest index tells" in str(inferred)


def test_what_was_made_of_the_same_rows_is_not_made_again(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000", "0000100"])
    run(tmp_path)
    first = (tmp_path / "out/img_emb/img_emb_00000.npy").stat().st_ino
    (tmp_path / "out/img_emb/img_emb_00001.npy").unlink()
    again = reorder_folder(tmp_path / "img_emb", tmp_path / "metadata", tmp_path / "out", LAYOUT)
    assert again.num_unchanged == 1
    assert (tmp_path / "out/img_emb/img_emb_00000.npy").stat().st_ino == first
    assert reordered(tmp_path, "00001") == [[100, 100.5]]
    write_partition(tmp_path, 0, ["0000100", "0000000"])
    assert reorder_folder(tmp_path / "img_emb", tmp_path / "metadata", tmp_path / "out", LAYOUT).num_unchanged == 0


def test_rows_of_other_embeddings_replace_what_was_made_of_the_same_keys(tmp_path: Path) -> None:
    write_partition(tmp_path, 0, ["0000000"])
    run(tmp_path)
    np.save(tmp_path / "img_emb/img_emb_0.npy", np.array([[7, 8]], np.float16))
    run(tmp_path)
    assert reordered(tmp_path, "00000") == [[7, 8]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2"])
@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_found_in_any_dtype(dtype: str, odd: float) -> None:
    rows = np.array([[1, -2], [-65504, 65504], [0, -0.0], [3, odd], [odd, 4]], dtype=dtype)
    assert first_not_finite(rows) == 3
    assert first_not_finite(rows[:3]) is None
