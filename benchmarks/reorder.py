"""Seconds of a reordering, compared with a copy of the same bytes and with a bare gather of the same rows.

    python benchmarks/reorder.py [--quick] [--json]

Embeddings of 768 half-precision numbers, in clip-retrieval's layout, in ten partitions, fully shuffled: any partition
may have a row of any shard, and 3 % of the rows are missing. Everything is in the page cache before the clock starts,
and all sides use as many threads as there are cores.

    cp             cp --reflink=never of the embeddings: the bytes, read and written once
    bare gather    rows copied to known positions in a shard's buffer and written, and nothing else
    moving         what `sp-data reorder` does instead: rows gathered, checked, written under a temporary name, renamed
    all in all     `sp-data reorder` from its first line: metadata read, keys split, layout proved, rows moved

The floor of moving is the bare gather, which touches every byte twice in random order. The floor of all in all is
moving and reading 9 bytes of key a row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

DIM = 768
NUM_PARTITIONS = 10
MISSING = 0.03
MARKED = 4
"""Numbers at a row's start that name the row."""
WORK = """
import json, sys
from pathlib import Path
import sp_data.dataset.reorder.folder as reordering
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
result = reordering.reorder_folder(folder / "in", folder / "in/metadata", folder / "out")
print(json.dumps([result.seconds_moving, result.num_rows]), flush=True)
sys.stdin.readline()
"""


@dataclass
class Case:
    rows: int
    shards: int
    cp: float
    gather: float
    moving: float
    total: float
    anonymous_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200,000 rows only")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--rows", type=int, help="one case with this many rows")
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="folder for temporary files; default: the system's")
    arguments = parser.parse_args()
    if arguments.rows:
        cases = [(arguments.rows, arguments.shards)]
    elif arguments.quick:
        cases = [(200_000, 100)]
    else:
        cases = [(200_000, 100), (200_000, 1000), (1_000_000, 100), (1_000_000, 1000)]
    measured = []
    if not arguments.json:
        names = f"{'cp':>7} {'gather':>7} {'moving':>7} {'all':>7}   moving/cp  /gather  all/cp   MB"
        print(f"{'rows':>9} {'shards':>6} {names}")
    for rows, shards in cases:
        with tempfile.TemporaryDirectory(prefix="sp-data-reorder-", dir=arguments.folder) as folder:
            case = measure(Path(folder), rows, shards)
        measured.append(case)
        if not arguments.json:
            print(
                f"{rows:>9,} {shards:>6,} {case.cp:>6.2f}s {case.gather:>6.2f}s {case.moving:>6.2f}s"
                f" {case.total:>6.2f}s"
                f"   {case.moving / case.cp:>9.2f} {case.moving / case.gather:>8.2f} {case.total / case.cp:>7.2f}"
                f" {case.anonymous_mb:>4.0f}",
                flush=True,
            )
    last = measured[-1]
    if arguments.json:
        figures = {
            "rows": last.rows,
            "move_over_cp": round(last.moving / last.cp, 3),
            "move_over_gather": round(last.moving / last.gather, 3),
            "total_over_cp": round(last.total / last.cp, 3),
            "anonymous_mb": round(last.anonymous_mb, 1),
        }
        print(json.dumps(figures))


def measure(folder: Path, rows: int, shards: int) -> Case:
    source = folder / "in"
    shard, index, size = write_embeddings(source, rows, shards)
    copies, gathers, movings, totals, peaks = [], [], [], [], []
    for _ in range(3):
        copies.append(timed_copy(source / "img_emb", folder / "copy"))
        gathers.append(timed_gather(source / "img_emb", shard, index, size, shards, folder / "bare"))
        moving, total, peak = timed_reorder(folder)
        check(folder / "out/img_emb", shard, index, size)
        shutil.rmtree(folder / "out")
        movings.append(moving)
        totals.append(total)
        peaks.append(peak)
    median = statistics.median
    return Case(rows, shards, median(copies), median(gathers), median(movings), median(totals), max(peaks))


def write_embeddings(source: Path, rows: int, shards: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """The shard and the index of each row, in the order of the partitions, and the number of rows of a shard."""
    dice = np.random.default_rng(0)
    size = -(-int(rows / (1 - MISSING)) // shards)
    position = dice.permutation(size * shards)[:rows].astype(np.int64)
    shard, index = np.divmod(position, size)
    (source / "img_emb").mkdir(parents=True)
    (source / "metadata").mkdir()
    width = len(str(size - 1))
    block = dice.standard_normal((4096, DIM), dtype=np.float32).astype(np.float16)
    bounds = np.linspace(0, rows, NUM_PARTITIONS + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(bounds.tolist())):
        embeddings = np.lib.format.open_memmap(
            source / f"img_emb/img_emb_{number}.npy", "w+", np.float16, (high - low, DIM)
        )
        for start in range(0, high - low, len(block)):
            part = embeddings[start : start + len(block)]
            part[:] = block[: len(part)]
        embeddings[:, :MARKED] = marks(position[low:high])
        embeddings.flush()
        keys = pa.array([f"{s:05d}{i:0{width}d}" for s, i in zip(shard[low:high], index[low:high], strict=True)])
        pq.write_table(pa.table({"image_path": keys}), source / f"metadata/metadata_{number}.parquet")
    os.sync()
    return shard, index, size


def marks(position: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Four numbers, exact in half precision, that name a row."""
    digits = [position // 1000**power % 1000 for power in range(MARKED)]
    return np.stack(digits, axis=1).astype(np.float16) + np.float16(1)


def timed_copy(source: Path, target: Path) -> float:
    started = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", "-r", str(source), str(target)], check=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def timed_gather(
    source: Path, shard: npt.NDArray[np.int64], index: npt.NDArray[np.int64], size: int, shards: int, target: Path
) -> float:
    """Seconds of the bare gather; positions are computed before the clock starts."""
    parts = [np.load(path, mmap_mode="r") for path in sorted(source.iterdir(), key=lambda path: int(path.stem[8:]))]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    order = np.lexsort((index, shard))
    edges = np.searchsorted(shard[order], np.arange(shards + 1))
    plans = []
    for number in range(shards):
        rows = order[edges[number] : edges[number + 1]]
        part_of = np.searchsorted(starts, rows, "right") - 1
        plans.append(
            [(index[rows[part_of == part]], rows[part_of == part] - starts[part], part) for part in range(len(parts))]
        )
    target.mkdir()

    def gather(number: int) -> None:
        buffer = np.zeros((size, DIM), np.float16)
        for indices, rows, part in plans[number]:
            buffer[indices] = parts[part][rows]
        with (target / f"{number}.npy").open("wb") as stream:
            np.save(stream, buffer)

    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(gather, range(shards)))
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def timed_reorder(folder: Path) -> tuple[float, float, float]:
    """Seconds moving, seconds in all (without Python's start and imports), and the peak of anonymous memory (MB)."""
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        peak = [anonymous_kb(process.pid)]
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(0.01):
                peak[0] = max(peak[0], anonymous_kb(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        total = time.perf_counter() - started
        is_over.set()
        watcher.join()
        process.communicate("\n")
    moving, _ = json.loads(line)
    return moving, total, peak[0] / 1024


def anonymous_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def check(folder: Path, shard: npt.NDArray[np.int64], index: npt.NDArray[np.int64], size: int) -> None:
    """Exit unless every row of the checked shards is at its index, by its marks, with zeros at missing rows."""
    expected: dict[int, npt.NDArray[np.int64]] = {}
    for number in np.unique(shard)[:: max(1, len(np.unique(shard)) // 10)]:
        expected[int(number)] = index[shard == number]
    for number, indices in expected.items():
        rows = np.load(folder / f"img_emb_{number:05d}.npy", mmap_mode="r")
        expected_marks = np.zeros((len(rows), MARKED), np.float16)
        expected_marks[indices] = marks(number * size + indices)
        if not (rows[:, :MARKED] == expected_marks).all():
            sys.exit(f"shard {number} is not in order")


main()
