"""Processor seconds and memory of reading a list of a million addresses, compared with the libraries' own reading.

    python benchmarks/lists.py [--rows N] [--json]

The floor reads the same file with what is under our reader and does nothing else: Python's `csv`, the lines of a text,
pyarrow's batches as Python strings. Each reading runs in a process of its own, three times; the median counts. Memory
is the process's peak beyond what it has after the imports. Ours holds all addresses at its end, as the scrape needs
them; `rows` is the reading without that, row by row.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KINDS = ("csv", "txt", "parquet")
SIDES = ("ours", "rows", "floor")
ROUNDS = 3
CAPTION = "a kid in a red coat and a blue hat, waving at the lake, number {}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--read", nargs=2, metavar=("SIDE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(measure(arguments.read[0], Path(arguments.read[1]))))
        return
    figures: dict[str, float] = {"rows": arguments.rows}
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as folder:
        for kind in KINDS:
            file = Path(folder) / f"list.{kind}"
            write(file, arguments.rows)
            figures[f"{kind}_mb"] = round(file.stat().st_size / 1e6, 1)
            for side in SIDES:
                command = [sys.executable, __file__, "--read", side, str(file)]
                rounds = [
                    json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                    for _ in range(arguments.rounds)
                ]
                for name in ("seconds", "peak_mb"):
                    figures[f"{kind}_{side}_{name}"] = round(statistics.median(one[name] for one in rounds), 2)
                assert {one["rows"] for one in rounds} == {arguments.rows}, rounds
            floor_s = figures[f"{kind}_floor_seconds"]
            for side in ("rows", "ours"):
                figures[f"{kind}_{side}_over_floor"] = round(figures[f"{kind}_{side}_seconds"] / floor_s, 2)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{arguments.rows:,} rows{'':14}{'seconds':>9}{'peak MB':>9}{'over floor':>12}")
    for kind in KINDS:
        for side in SIDES:
            over = f"{figures[f'{kind}_{side}_over_floor']:.2f}" if side != "floor" else ""
            seconds, peak = figures[f"{kind}_{side}_seconds"], figures[f"{kind}_{side}_peak_mb"]
            print(f".{kind:10}{side:12}{seconds:>9.2f}{peak:>9.0f}{over:>12}")


def write(file: Path, num_rows: int) -> None:
    urls = (f"https://pictures.example/{number // 1000:05}/{number:09}.png" for number in range(num_rows))
    if file.suffix == ".txt":
        with file.open("w") as stream:
            stream.writelines(f"{url}\n" for url in urls)
        return
    rows = ((url, CAPTION.format(number), "CC-BY-SA") for number, url in enumerate(urls))
    if file.suffix == ".csv":
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([("url", "caption", "licence"), *rows])
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("url", "caption", "licence"), map(list, columns), strict=True)))
    pq.write_table(table, file, row_group_size=100_000)


def measure(side: str, file: Path) -> dict[str, float]:
    # The time of imports does not count.
    import sp_data.wiki.lists.parquet  # noqa: F401

    read = {"ours": ours, "rows": rows_of_ours, "floor": floor}[side]
    before = peak_mb()
    started = time.process_time()
    num_rows = read(file)
    seconds = time.process_time() - started
    return {"seconds": seconds, "peak_mb": peak_mb() - before, "rows": num_rows}


def ours(file: Path) -> int:
    from sp_data.wiki.addresses import read_addresses

    return len(read_addresses(str(file)))


def rows_of_ours(file: Path) -> int:
    from sp_data.wiki import addresses

    return sum(1 for _ in addresses.reader_of(file)(file, ""))


def floor(file: Path) -> int:
    floors: dict[str, Callable[[Path], int]] = {".csv": csv_floor, ".txt": txt_floor, ".parquet": parquet_floor}
    return floors[file.suffix](file)


def csv_floor(file: Path) -> int:
    with file.open(newline="", encoding="utf-8") as stream:
        return sum(1 for _ in csv.reader(stream)) - 1


def txt_floor(file: Path) -> int:
    with file.open(encoding="utf-8") as stream:
        return sum(1 for _ in stream)


def parquet_floor(file: Path) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(batch_size=10_000, use_threads=False)
        return sum(max(len(column.to_pylist()) for column in batch.columns) for batch in batches)


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
