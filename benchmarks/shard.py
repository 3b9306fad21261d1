"""Seconds of the shard stage, compared with img2dataset's own call on the same pictures.

    python benchmarks/shard.py [--quick] [--json]

PNGs of 400 x 400 px on this disk, as a curated table and as a list of file:// addresses. Both sides make shards with
the same number of pictures of 256 px, with the same number of processes; each is timed from start to end in a process
of its own.

    img2dataset    img2dataset.download(...) with the options of the stage, and nothing else
    sp-data        the shard stage: img2dataset, then every shard rewritten in key order, its rows accounted for, hashed
                   and published

`over_img2dataset` is our rate over img2dataset's. The limit is img2dataset's own call: what the stage adds, reading and
writing every shard once more, runs beside img2dataset's processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import DROPPED_SCHEMA, KEPT_SCHEMA
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.pipeline import STAGES

SIDE_PX = 400
PROCESSES = 2
STAGE = """
import sys
from sp_data import manifest as manifests
from sp_data.dataset.shards.stage import shard
from sp_data.lake import Lake
from sp_data.pipeline import stage_run
from sp_data.recipe import Recipe, Shard, Source
if __name__ == "__main__":
    lake = Lake(sys.argv[1], "bench")
    settings = Shard(samples_per_shard=int(sys.argv[2]), processes=int(sys.argv[3]))
    recipe = Recipe(name="bench", source=Source(wiki="http://bench.localhost"), shard=settings)
    run = stage_run("shard", recipe, lake, {"curate": manifests.latest(lake, "curate")})
    print(shard(run).manifest.counts.out)
"""
PEER = """
import sys
if __name__ == "__main__":
    from img2dataset import download
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", output_format="webdataset",
        url_col="url", caption_col="caption", number_sample_per_shard=int(sys.argv[3]), image_size=256,
        resize_mode="border", encode_format="jpg", encode_quality=95, processes_count=int(sys.argv[4]), thread_count=4,
        extract_exif=False, compute_hash="sha256", enable_wandb=False, incremental_mode="incremental",
    )
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="400 pictures, one round")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    arguments = parser.parse_args()
    num_pictures, rounds = (400, 1) if arguments.quick else (2000, 3)
    with tempfile.TemporaryDirectory(prefix="sp-data-shard-") as folder:
        root = Path(folder)
        lake, size = write_pictures(root, num_pictures), num_pictures // 20
        for name, source in (("stage.py", STAGE), ("peer.py", PEER)):
            (root / name).write_text(source)
        ours = [sys.executable, str(root / "stage.py"), str(root / "lake"), str(size), str(PROCESSES)]
        theirs = [sys.executable, str(root / "peer.py"), str(root / "list.parquet"), str(root / "peer"), str(size)]
        theirs.append(str(PROCESSES))
        seconds: dict[str, list[float]] = {"sp-data": [], "img2dataset": []}
        for _ in range(rounds):
            seconds["img2dataset"].append(timed(theirs))
            count(root / "peer", num_pictures, "img2dataset")
            shutil.rmtree(root / "peer")
            seconds["sp-data"].append(timed(ours))
            count(Path(lake.full("shards")), num_pictures, "sp-data")
            for stage_folder in ("shards", "manifests/shard"):
                shutil.rmtree(lake.full(stage_folder))
    rate = {name: num_pictures / statistics.median(of_rounds) for name, of_rounds in seconds.items()}
    figures = {"pictures": num_pictures, "over_img2dataset": round(rate["sp-data"] / rate["img2dataset"], 3)}
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{num_pictures:,} pictures, {rounds} round(s) each; img2dataset.download as in this file's PEER\n")
    for name, a_second in rate.items():
        print(f"{name:<12} {statistics.median(seconds[name]):>6.1f} s {a_second:>7.1f} pictures a second")
    print(f"\nover img2dataset {figures['over_img2dataset']}")


def write_pictures(root: Path, num_pictures: int) -> Lake:
    """A lake in which only the curate stage is done; beside it, img2dataset's list of the same files."""
    lake = Lake(str(root / "lake"), "bench")
    dice = np.random.default_rng(0)
    rows = []
    for number in range(num_pictures):
        path = f"originals/{number % 256:02x}/{number:040x}.png"
        file = Path(lake.full(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(dice.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(file, compress_level=1)
        title = f"File:Kid {number}.png"
        row = dict.fromkeys(KEPT_SCHEMA.names) | {
            "title": title,
            "sha1": f"{number:040x}",
            "split": "train",
            "caption": f"a kid of number {number}",
            "variants": "[]",
            "path": path,
            "num_bytes": file.stat().st_size,
            "url": f"http://wiki.example/{number}.png",
        }
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=KEPT_SCHEMA)
    with lake.scratch("bench") as scratch:
        pq.write_table(table, scratch / "kept")
        pq.write_table(DROPPED_SCHEMA.empty_table(), scratch / "dropped")
        files = [
            lake.publish(scratch / "kept", "curated/bench.parquet"),
            lake.publish(scratch / "dropped", "curated/bench.dropped.parquet"),
        ]
    manifest = Manifest.make(
        stage="curate",
        version=STAGES["curate"].version,
        recipe={},
        inputs={},
        counts=Counts(in_=num_pictures, out=num_pictures),
        files=files,
        details={},
        versions={},
        previous=None,
    )
    manifests.publish(lake, manifest)
    urls = [Path(lake.full(row["path"])).as_uri() for row in rows]
    pq.write_table(pa.table({"url": urls, "caption": table["caption"]}), root / "list.parquet")
    return lake


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    if process.returncode:
        sys.exit(process.stderr)
    return time.perf_counter() - started


def count(folder: Path, expected: int, side: str) -> None:
    """Exit if a side lost pictures, which would make it fast."""
    stats = [json.loads(path.read_text()) for path in folder.glob("*_stats.json")]
    if (num_made := sum(shard["successes"] for shard in stats)) != expected:
        sys.exit(f"{side} made {num_made} of {expected} pictures")


main()
