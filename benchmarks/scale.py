"""Time and memory of planning a very large dataset: manifests and keys only, no picture and no embedding.

    python benchmarks/scale.py [--rows 10000000] [--quick] [--json]

A made-up curated table with --rows rows, shards of 10,000, one partition of keys a shard. Each step runs the project's
own code in a process of its own, which reports its time and its peak memory (resident, including mapped files and the
100 to 200 MB of Python and the libraries).

    plan        read the curated table block by block: digests, new shards, their rows, each shard's identity
    account     read back every shard's parquet: what is alive, failed or removed; make the shard manifest
    reorder     read the keys of all partitions, give each its slot, list the sources of each reordered file
    dataset     make the dataset manifest, write it, read it back
    epoch       the order of one epoch

The floor is to read each row once and to hash what identifies it: 1 microsecond of sha256 and 4 of JSON. Work on
pictures is additional, and is spread over any number of machines (docs/scaling.md).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import KEPT_SCHEMA, kept_blocks
from sp_data.dataset.reorder import stage as reorder
from sp_data.dataset.shards import stage as shards
from sp_data.dataset.shards.plan import (
    MADE_OF,
    KeptSamples,
    PlannedShard,
    hex_of,
    identity_of_shard,
    rows_of,
    samples_in,
)
from sp_data.dataset.shards.tars import SUCCESS
from sp_data.dataset.verify.stage import dataset_details
from sp_data.keys import KeyLayout
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest, ShardPart
from sp_data.pipeline import STAGES, stage_run
from sp_data.recipe import Recipe, Shard, Source
from sp_data.training.loop.sampler import between

SIZE = 10_000
LAYOUT = KeyLayout.of_shards(SIZE)
STEPS = ("plan", "account", "reorder", "dataset", "epoch")
ROWS_A_BLOCK = 500_000
SHA256 = "0" * 64
CLIP = "ViT-L-14-00000000"
SETTINGS = Shard(samples_per_shard=SIZE)
RECIPE = Recipe(name="scale", source=Source(wiki="http://scale.localhost"), shard=SETTINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="300,000 rows")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--folder", type=Path, help="folder for temporary files; default: the system's")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    num_rows = 300_000 if arguments.quick else arguments.rows
    if arguments.step:
        started = time.perf_counter()
        summary = globals()[f"step_{arguments.step}"](Lake(str(arguments.folder), "scale"), num_rows)
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "summary": summary}))
        return
    figures: dict[str, float] = {"rows": num_rows}
    if not arguments.json:
        print(f"{num_rows:,} rows, shards of {SIZE:,}\n\n{'step':<10} {'seconds':>8} {'µs a row':>9} {'MB':>7}")
    with tempfile.TemporaryDirectory(prefix="sp-data-scale-", dir=arguments.folder) as folder:
        for step in ("table", *STEPS):
            command = [sys.executable, __file__, "--step", step, "--folder", folder, "--rows", str(num_rows)]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                sys.exit(process.stderr)
            result = json.loads(process.stdout)
            if step == "table":
                continue
            figures |= {f"seconds_{step}": round(result["seconds"], 2), f"mb_{step}": round(result["peak_mb"])}
            if not arguments.json:
                numbers = (
                    f"{result['seconds']:>8.1f} {1e6 * result['seconds'] / num_rows:>9.2f} {result['peak_mb']:>7.0f}"
                )
                print(f"{step:<10} {numbers}   {result['summary']}", flush=True)
    if arguments.json:
        print(json.dumps(figures))


def step_table(lake: Lake, num_rows: int) -> str:
    """The curated table, sorted by title, without the columns about the pictures' looks, which no plan reads."""
    path = Path(lake.full("curated/scale.parquet"))
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, KEPT_SCHEMA) as writer:
        for start in range(0, num_rows, ROWS_A_BLOCK):
            numbers = np.arange(start, min(start + ROWS_A_BLOCK, num_rows))
            digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), 9, "0")
            sha1 = pc.utf8_lpad(digits, 40, "f")
            columns = {
                "title": _joined("File:Kid ", digits, ".png"),
                "sha1": sha1,
                "split": pa.array(np.array(["train", "val", "test"])[(numbers % 20 == 1) + 2 * (numbers % 20 == 2)]),
                "caption": _joined("a kid in a red coat and a teal top hat at the school, number ", digits, ""),
                "variants": pa.array(["[]"] * len(numbers)),
                "path": _joined("originals/ff/", sha1, ".png"),
                "url": _joined("https://static.example.org/images/f/ff/Kid_", digits, ".png/revision/latest"),
                "page": _joined("Kid ", digits, ""),
            }
            nulls = {
                field.name: pa.nulls(len(numbers), field.type) for field in KEPT_SCHEMA if field.name not in columns
            }
            writer.write_table(pa.table({**nulls, **columns}).select(KEPT_SCHEMA.names).cast(KEPT_SCHEMA))
    manifest = _manifest(
        "curate", num_rows, [lake.entry("curated/scale.parquet"), _entry("curated/scale.dropped.parquet")]
    )
    manifests.publish(lake, manifest)
    return ""


def step_plan(lake: Lake, num_rows: int) -> str:
    curated = _latest(lake, "curate")
    kept = KeptSamples(kept_blocks(lake, curated, MADE_OF))
    new = kept.plan(np.zeros(len(kept), dtype=bool), SIZE, 0)
    blocks = kept_blocks(lake, curated, shards.KEPT_COLUMNS)
    version, fields, written_s = STAGES["shard"].version, SETTINGS.identity_fields(), 0.0
    with lake.scratch("plan") as folder:
        for shard, rows in rows_of(new, blocks, len(kept), folder):
            samples = hex_of(samples_in(rows))
            columns = zip(samples, rows["path"].to_pylist(), rows["url"].to_pylist(), strict=True)
            assert identity_of_shard(shard.number, shard.split, columns, version, fields)
            started = time.perf_counter()
            _write_shard(lake, shard.number, samples)
            written_s += time.perf_counter() - started
    return f"{len(new):,} shards; {written_s:.1f} s of it to write what img2dataset would have written"


def _write_shard(lake: Lake, number: int, samples: list[str]) -> None:
    """Write what later steps read of a shard: its parquet and the keys of its embeddings. One picture in 50 failed."""
    first = number * 10**LAYOUT.index_width
    keys = pc.utf8_lpad(pc.cast(pa.array(np.arange(first, first + len(samples))), pa.string()), LAYOUT.width, "0")
    failed = np.arange(len(samples)) % 50 == 49
    table = pa.table(
        {
            "key": keys,
            "sample": samples,
            "status": pa.array(np.where(failed, "failed_to_resize", SUCCESS)),
            "error_message": pa.array(np.where(failed, "cannot be decoded", None)),
        }
    )
    name = LAYOUT.shard_name(number)
    for path, rows in (
        (f"shards/{name}.parquet", table),
        (
            f"embeddings/{CLIP}/metadata/metadata_{name}.parquet",
            pa.table({"image_path": keys.filter(pa.array(~failed))}),
        ),
    ):
        file = Path(lake.full(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, file)


def step_account(lake: Lake, num_rows: int) -> str:
    curated = _latest(lake, "curate")
    kept = KeptSamples(kept_blocks(lake, curated, MADE_OF))
    planned, parts = [], {}
    for shard in kept.plan(np.zeros(len(kept), dtype=bool), SIZE, 0):
        name = LAYOUT.shard_name(shard.number)
        planned.append(PlannedShard(shard.number, shard.split, len(shard.rows), SHA256))
        files = tuple(_entry(f"shards/{name}{end}") for end in (".tar", ".parquet", "_stats.json"))
        parts[shard.number] = ShardPart(
            name=name, identity=SHA256, files=files, details={"num_samples": len(shard.rows)}
        )
    output = shards._output(kept, planned, parts, LAYOUT, SIZE, 0, lake)
    manifest = stage_run("shard", RECIPE, lake, {"curate": curated}).publish(output).manifest
    size = (lake.size("manifests/shard/latest.json") or 0) / 1e6
    return f"manifest of {size:.1f} MB, {manifest.counts.num_dropped:,} of {manifest.counts.in_:,} failed"


def step_reorder(lake: Lake, num_rows: int) -> str:
    sharded = _latest(lake, "shard")
    files = [
        _entry(f"embeddings/{CLIP}/{kind}/{kind}_{name}.{end}")
        for name in _names(sharded)
        for kind, end in (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet"))
    ]
    embedded = _manifest("embed", num_rows, files, clip=CLIP, clip_model="ViT-L/14", dim=768, dtype="float16", lost=[])
    manifests.publish(lake, embedded)
    run = stage_run("reorder", RECIPE, lake, {"shard": sharded, "embed": embedded})
    sizes = {shard["number"]: shard["num_rows"] for shard in sharded.details["shards"]}
    with lake.scratch("reorder") as scratch:
        names, keys = reorder._read_keys(embedded, LAYOUT, lake, scratch)
        plan = reorder.plan_rows(keys, LAYOUT, sizes, scratch)
        num_jobs = sum(1 for _ in reorder._jobs(plan, keys, names, run))
    return f"{plan.num_placed:,} rows for {num_jobs:,} files"


def step_dataset(lake: Lake, num_rows: int) -> str:
    sharded = _latest(lake, "shard")
    files = [
        _entry(f"reordered/{CLIP}/{kind}/{kind}_{name}.npy")
        for name in _names(sharded)
        for kind in ("img_emb", "text_emb")
    ]
    stages = {"scrape": _manifest("scrape", num_rows, []), "curate": _latest(lake, "curate"), "shard": sharded}
    by_stage = {**stages, "embed": _latest(lake, "embed"), "reorder": _manifest("reorder", num_rows, files)}
    manifests.publish(lake, _manifest("verify", num_rows, [], **dataset_details(by_stage, LAYOUT)))
    assert _latest(lake, "verify").details["shards"]
    return f"manifest of {(lake.size('manifests/verify/latest.json') or 0) / 1e6:.1f} MB"


def step_epoch(lake: Lake, num_rows: int) -> str:
    first = between(0, 4, num_samples=num_rows, seed=0)
    return f"begins with samples {first}"


def _manifest(stage: str, num_rows: int, files: list[FileEntry], **details: object) -> Manifest:
    return Manifest.make(
        stage=stage,
        version=STAGES[stage].version,
        recipe={},
        inputs={},
        counts=Counts(in_=num_rows, out=num_rows),
        files=files,
        details=details,
    )


def _entry(path: str) -> FileEntry:
    return FileEntry(path=path, bytes=1, sha256=SHA256)


def _latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    if manifest is None:
        sys.exit(f"an earlier step has to write the manifest of {stage}; there is none")
    return manifest


def _names(sharded: Manifest) -> Iterator[str]:
    return (LAYOUT.shard_name(shard["number"]) for shard in sharded.details["shards"])


def _joined(before: str, digits: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(before, digits, after, "")


if __name__ == "__main__":
    main()
