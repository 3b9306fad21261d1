"""The bugs of the tool that people used to reorder embeddings: each case is now done right, or refused with an error.

embedding-dataset-reordering cut keys at fixed widths, caught every error, and ended with exit 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sp_data.dataset.reorder.folder import reorder_folder
from sp_data.errors import LayoutError
from sp_data.keys import KeyLayout


def write(root: Path, partitions: list[list[str]], dtype: str = "float16") -> None:
    """Partitions as clip-retrieval writes them; the row of key k is [k, -k], exact in float16 below 2,048."""
    kind = "img_emb"
    for number, keys in enumerate(partitions):
        for folder in (kind, "metadata"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rows = np.array([[int(key), -int(key)] for key in keys], dtype)
        np.save(root / kind / f"{kind}_{number}.npy", rows)
        pq.write_table(pa.table({"image_path": keys}), root / "metadata" / f"metadata_{number}.parquet")


def reorder(root: Path, layout: KeyLayout | None = None, threads: int = 1) -> dict[str, list[float]]:
    """File -> first number of each row."""
    reorder_folder(root / "img_emb", root / "metadata", root / "out", layout, threads=threads)
    return {path.name: np.load(path)[:, 0].tolist() for path in sorted((root / "out/img_emb").iterdir())}


def test_an_error_is_swallowed_and_the_exit_is_0(tmp_path: Path) -> None:
    """pandas 2 raised a TypeError three times: no files, exit 0."""
    write(tmp_path, [["0000001"]])
    (tmp_path / "img_emb/img_emb_0.npy").write_bytes(b"no array")
    command = [sys.executable, "-m", "sp_data.cli", "reorder", "--embeddings", str(tmp_path / "img_emb"), "--metadata"]
    command += [str(tmp_path / "metadata"), "--output", str(tmp_path / "out"), "--layout", "5+2"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "300"})
    assert process.returncode == 1
    assert "img_emb_0.npy is no whole .npy file" in process.stderr


@pytest.mark.parametrize("layout", [KeyLayout(5, 2), KeyLayout(4, 3), KeyLayout(6, 1), KeyLayout(2, 5)])
def test_widths_that_are_given_are_ignored(tmp_path: Path, layout: KeyLayout) -> None:
    """With one process, the widths 4 and 6 were written into the code."""
    write(tmp_path, [[layout.key(1, 1), layout.key(0, 1), layout.key(0, 0)]], "float32")
    first_numbers = reorder(tmp_path, layout)
    assert list(first_numbers) == [f"img_emb_{layout.shard_name(shard)}.npy" for shard in (0, 1)]
    assert first_numbers[f"img_emb_{layout.shard_name(0)}.npy"] == [0, 1]


def test_several_workers_cannot_start(tmp_path: Path) -> None:
    """With several processes, its lambda could not be pickled."""
    write(tmp_path, [["0000101", "0000000"], ["0000100", "0000001"]])
    assert reorder(tmp_path, KeyLayout(5, 2), threads=4) == {
        "img_emb_00000.npy": [0, 1],
        "img_emb_00001.npy": [100, 101],
    }


def test_a_shard_over_two_partitions_is_overwritten_by_the_second(tmp_path: Path) -> None:
    write(tmp_path, [["0000002", "0000000"], ["0000001"]])
    assert reorder(tmp_path, KeyLayout(5, 2)) == {"img_emb_00000.npy": [0, 1, 2]}


def test_a_gap_makes_the_file_float64(tmp_path: Path) -> None:
    """A file of 298 MB became one of 1,172 MB."""
    write(tmp_path, [["0000002", "0000000"]])
    assert reorder(tmp_path, KeyLayout(5, 2)) == {"img_emb_00000.npy": [0, 0, 2]}
    assert np.load(tmp_path / "out/img_emb/img_emb_00000.npy").dtype == np.float16


def test_trailing_gaps_are_not_padded(tmp_path: Path) -> None:
    write(tmp_path, [["0000000", "0000001", "0000002", "0000100"]])
    assert reorder(tmp_path, KeyLayout(5, 2))["img_emb_00001.npy"] == [100, 0, 0]


def test_a_shard_without_embeddings_gets_no_file(tmp_path: Path) -> None:
    write(tmp_path, [["0000000", "0000200"]])
    assert reorder(tmp_path, KeyLayout(5, 2)) == {
        "img_emb_00000.npy": [0],
        "img_emb_00001.npy": [0],
        "img_emb_00002.npy": [200],
    }


def test_21_shards_come_into_one_file(tmp_path: Path) -> None:
    """Keys of 5+2 digits cut as 3+4: the decoder's loader then used 100 of 2,060 pictures without a word."""
    layout = KeyLayout(5, 2)
    write(tmp_path, [[layout.key(shard, index) for shard in range(21) for index in range(12)]])
    first_numbers = reorder(tmp_path)
    assert list(first_numbers) == [f"img_emb_{shard:05d}.npy" for shard in range(21)]
    assert first_numbers["img_emb_00020.npy"] == [2000 + index for index in range(12)]


def test_nothing_asks_whether_the_widths_fit(tmp_path: Path) -> None:
    """The same keys, another dataset's folder: the widths are refused with what they would mean."""
    write(tmp_path, [["0099901", "0000000"]], "float32")
    with pytest.raises(LayoutError, match=r"2\+5: 1 shards up to 00, indices up to 99901"):
        reorder(tmp_path)
