"""Shards: kept pictures as webdataset tars, by img2dataset, in a child process, from local copies.

    shards/00007.tar          000070042.jpg  000070042.json  000070042.txt  ...  in key order
    shards/00007.parquet      one row an input row, failed ones too: key, status, error_message, title, split, ...
    shards/00007_stats.json   img2dataset's own; the one file that carries times

A shard is of one split only and is never written again once a manifest names it. A later catalogue adds new shards for
what is new; what is gone or changed leaves a tombstone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.child import python_child, tail
from sp_data.dataset.curated import SPLITS, copies_missing, read_kept
from sp_data.dataset.tidy import SUCCESS, tidy_parquet, tidy_samples, write_tar
from sp_data.errors import LakeFull, StageError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import NUM_AT_ONCE, Lake
from sp_data.manifest import Counts, Manifest, Part
from sp_data.parquet import read_table
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Shard
from sp_data.stage import VERSION_OF, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "shard"
VERSION = VERSION_OF[STAGE]
CARRIED = ("title", "sha1", "split", "page", "revision", "licence", "uploader", "variants", "path", "sample")
"""Columns that travel in the .json and the parquet beside img2dataset's own."""
POLL_S = 0.1
COPIED_AT_ONCE = 20_000
"""Pictures of a remote lake that are copied to this machine for one run of img2dataset."""


@dataclass(frozen=True, slots=True)
class PlannedShard:
    number: int
    split: str
    rows: list[dict[str, Any]]
    """Rows of the curated table with `sample`, which names a sample by what it is: title, bytes, captions, split."""

    def identity(self, settings: Shard) -> str:
        rows = [[row["sample"], row["path"], row["url"]] for row in self.rows]
        return digest_of([VERSION, settings.what(), self.number, self.split, rows])


def shard(curated: Manifest, settings: Shard, lake: Lake, *, progress: Progress = SILENT) -> StageResult:
    """Publish every kept picture that is in no shard yet in new shards, and tombstones for what is gone.

    Raises StageError if img2dataset fails or nothing was kept, StageNotDone if a picture that curate published is
    missing.
    """
    with lake.writer():
        inputs = {"curate": curated.digest}
        identity = manifests.identity_of(STAGE, VERSION, settings.what(), inputs)
        if done := manifests.is_done(lake, STAGE, identity):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        if missing := copies_missing(lake, curated):
            raise StageNotDone(f"{lake.full(missing[0])} is missing or cut; run `sp-data curate` first")
        kept = with_sample(read_kept(lake, curated).to_pylist())
        if not kept:
            raise StageError(
                f"curate kept none of {curated.counts.in_:,} pictures ({_reasons(curated)}), so there is nothing to "
                "put into shards; `sp-data why` names them, the fields below `curate` decide"
            )
        base, first_new = _base(lake, settings, identity)
        size = settings.samples_per_shard or (
            int(base.details["samples_per_shard"]) if base else choose_shard_size(len(kept))
        )
        layout = KeyLayout.of_shards(size)
        old = _old_shards(lake, base) if base else []
        placed = {row["sample"] for planned in old for row in planned.rows}
        new = plan(kept, placed, size, first_new)
        progress.begin(STAGE, sum(len(planned.rows) for planned in old + new), "pictures")
        parts = _make_missing(old + new, layout, settings, lake, progress)
        made = _manifest(kept, old + new, parts, layout, size, first_new, settings, inputs, lake, base)
        manifests.publish(lake, made)
        log.info("shard: %d samples in %d shards, layout %s", made.counts.out, len(made.details["shards"]), str(layout))
        return StageResult(made, "done")


def _reasons(curated: Manifest) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in curated.counts.dropped.items()) or "it was given none"


def choose_shard_size(num_samples: int) -> int:
    """At least 20 shards where there are pictures enough, and never beyond img2dataset's usual 10,000 a shard."""
    return max(10, min(10_000, num_samples // 25))


def plan(kept: list[dict[str, Any]], placed: set[str], size: int, first: int) -> list[PlannedShard]:
    """New shards for the rows whose `sample` is not placed yet: one split each, in an order mixed by title."""
    shards: list[PlannedShard] = []
    for split in SPLITS:
        rows = [row for row in kept if row["split"] == split and row["sample"] not in placed]
        # By the title's hash: neighbours on the wiki (one episode, one artist) land far apart, the same way each time.
        rows.sort(key=lambda row: hashlib.sha256(row["title"].encode()).digest())
        for start in range(0, len(rows), size):
            shards.append(PlannedShard(first + len(shards), split, rows[start : start + size]))
    return shards


def with_sample(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with `sample`: the digest of what a sample is made of."""
    made_of = ("title", "sha1", "caption", "variants", "split")
    return [{**row, "sample": digest_of([row[name] for name in made_of])[:32]} for row in rows]


def _base(lake: Lake, settings: Shard, identity: str) -> tuple[Manifest | None, int]:
    """The snapshot whose shards stay, and the number of the first new one.

    If this very identity was published before, some of its files are gone: then the base is what it was at that time,
    so that the plan, and with it every byte, comes out the same.
    """
    published = [manifest for manifest in _all_manifests(lake) if manifest.version == VERSION]
    for manifest in published:
        if manifest.identity == identity:
            base = manifests.load(lake, STAGE, manifest.details["base"]) if manifest.details["base"] else None
            return base, int(manifest.details["first_new"])
    numbers = [shard["number"] for manifest in published for shard in manifest.details["shards"]]
    newest = manifests.latest(lake, STAGE)
    equal = newest is not None and newest.version == VERSION and newest.recipe == settings.what()
    return (newest if equal else None), max(numbers, default=-1) + 1


def _all_manifests(lake: Lake) -> Iterator[Manifest]:
    for path in lake.list(f"manifests/{STAGE}"):
        name = path.removeprefix(f"manifests/{STAGE}/")
        if "/" not in name and name != "latest.json":
            found = manifests.load(lake, STAGE, name.removesuffix(".json"))
            if found is not None:
                yield found


def _old_shards(lake: Lake, base: Manifest) -> list[PlannedShard]:
    """What was planned for the shards of an earlier snapshot, read from their parquet files.

    A shard whose parquet is gone is left out: its pictures count as not placed and get new keys.
    """
    layout = KeyLayout.parse(base.details["layout"])
    found = []
    for listed in base.details["shards"]:
        path = f"shards/{layout.shard_name(listed['number'])}.parquet"
        if lake.size(path) == base.file(path).bytes:
            rows = read_rows(lake, path)
            found.append(PlannedShard(listed["number"], listed["split"], rows))
        else:
            log.warning("shard: %s is missing or cut; its pictures get new keys", lake.full(path))
    return found


def read_rows(lake: Lake, path: str) -> list[dict[str, Any]]:
    """Rows of one shard's parquet, in key order. Raises CorruptFile."""
    with lake.local(path) as local:
        rows: list[dict[str, Any]] = read_table(local, lake.full(path)).to_pylist()
        return rows


def _make_missing(
    planned: list[PlannedShard], layout: KeyLayout, settings: Shard, lake: Lake, progress: Progress
) -> dict[int, Part]:
    """The part of every planned shard; those that are not in the lake yet are made, and published one by one."""
    parts: dict[int, Part] = {}
    missing: list[PlannedShard] = []
    left = manifests.Parts(lake, STAGE)
    for one in planned:
        if part := left.find(layout.shard_name(one.number), one.identity(settings)):
            parts[one.number] = part
            progress.advance(len(one.rows))
        else:
            missing.append(one)
    for batch in _batches(missing, lake):
        with lake.scratch(STAGE) as scratch:
            for one, raw in _run_img2dataset(batch, layout, settings, lake, scratch):
                parts[one.number] = _publish(one, raw, layout, settings, lake, scratch)
                progress.advance(len(one.rows))
    return parts


def _batches(missing: list[PlannedShard], lake: Lake) -> list[list[PlannedShard]]:
    """What one run of img2dataset makes: everything, or from a remote lake what may lie on this machine at a time."""
    batches: list[list[PlannedShard]] = []
    num_copied = 0
    for one in missing:
        num_copied += len(one.rows)
        if not batches or (not lake.is_local and num_copied > COPIED_AT_ONCE):
            batches.append([])
            num_copied = len(one.rows)
        batches[-1].append(one)
    return batches


def _run_img2dataset(
    missing: list[PlannedShard], layout: KeyLayout, settings: Shard, lake: Lake, scratch: Path
) -> Iterator[tuple[PlannedShard, Path]]:
    """Yield each shard with the folder it lies in, as soon as img2dataset has finished it."""
    waiting: dict[int, tuple[PlannedShard, Path]] = {}
    jobs = []
    for run in _runs_in_a_row(missing):
        first = run[0].number
        inputs, outputs = scratch / f"in-{first}", scratch / f"out-{first}"
        inputs.mkdir()
        outputs.mkdir()
        for one in run:
            # One input file a shard: img2dataset never lets a shard reach into the next file.
            pq.write_table(_input_table(one, lake, scratch), inputs / f"{layout.shard_name(one.number)}.parquet")
            waiting[one.number] = (one, outputs)
        if first:
            # `extend` counts on from the highest number it finds; this is how it is told where to start.
            (outputs / f"{layout.shard_name(first - 1)}_stats.json").write_text("{}")
        jobs.append(_job(inputs, outputs, layout, settings, len(run)))
    job_file, child_log = scratch / "job.json", scratch / "img2dataset.log"
    job_file.write_text(json.dumps(jobs))
    # wandb, which img2dataset imports, leaves temporary folders behind; in the scratch folder they are swept.
    (scratch / "tmp").mkdir()
    environment = {
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(scratch / "tmp"),
    }
    with python_child("sp_data.dataset.shard_worker", str(job_file), log=child_log, environment=environment) as process:
        while waiting:
            ended = process.poll() is not None
            finished = [
                number
                for number, (_, folder) in sorted(waiting.items())
                if (folder / f"{layout.shard_name(number)}_stats.json").exists()
            ]
            for number in finished:
                yield waiting.pop(number)
            if waiting and ended and not finished:
                _fail(process, child_log, layout.shard_name(min(waiting)))
            if not finished:
                time.sleep(POLL_S)


def _fail(process: subprocess.Popen[bytes], child_log: Path, name: str) -> None:
    said = tail(child_log)
    if "No space left" in child_log.read_text("utf-8", "replace"):
        raise LakeFull(
            f"no space left while img2dataset wrote shard {name}; free some, then run the same command again"
        )
    raise StageError(f"img2dataset ended (exit {process.returncode}) without shard {name}; it said: {said}")


def _runs_in_a_row(planned: list[PlannedShard]) -> list[list[PlannedShard]]:
    """Group shards whose numbers follow each other: img2dataset numbers what it is given in a row."""
    runs: list[list[PlannedShard]] = []
    for one in sorted(planned, key=lambda one: one.number):
        if runs and runs[-1][-1].number + 1 == one.number:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


INPUT_SCHEMA = pa.schema(
    [("url", pa.string()), ("caption", pa.string())]
    + [(name, pa.int64() if name == "revision" else pa.string()) for name in CARRIED]
)


def _input_table(one: PlannedShard, lake: Lake, scratch: Path) -> pa.Table:
    with ThreadPoolExecutor(1 if lake.is_local else NUM_AT_ONCE) as pool:
        urls = list(pool.map(lambda row: _local_url(row["path"], lake, scratch), one.rows))
    rows = [{**row, "url": url} for row, url in zip(one.rows, urls, strict=True)]
    return pa.Table.from_pylist([{name: row[name] for name in INPUT_SCHEMA.names} for row in rows], schema=INPUT_SCHEMA)


def _local_url(path: str, lake: Lake, scratch: Path) -> str:
    """A file:// address that img2dataset can open: of the lake's own file, or of a copy where the lake is remote."""
    if lake.is_local:
        return Path(lake.full(path)).as_uri()
    copy = scratch / "pictures" / path
    if not copy.exists():  # two samples of the same bytes
        copy.parent.mkdir(parents=True, exist_ok=True)
        beside = copy.with_name(f".{uuid.uuid4().hex}")
        beside.write_bytes(lake.read_bytes(path))
        beside.replace(copy)
    return copy.as_uri()


def _job(inputs: Path, outputs: Path, layout: KeyLayout, settings: Shard, num_shards: int) -> dict[str, Any]:
    return {
        "url_list": str(inputs),
        "output_folder": str(outputs),
        "input_format": "parquet",
        "output_format": "webdataset",
        "url_col": "url",
        "caption_col": "caption",
        "save_additional_columns": list(CARRIED),
        "number_sample_per_shard": 10**layout.index_width,
        "oom_shard_count": layout.shard_width,
        "image_size": settings.image_size_px,
        "resize_mode": settings.resize_mode,
        "encode_format": "jpg",
        "encode_quality": settings.jpeg_quality,
        "processes_count": min(settings.processes or os.cpu_count() or 1, num_shards),
        "thread_count": 4,
        "extract_exif": False,
        "compute_hash": "sha256",
        "incremental_mode": "extend",
        "enable_wandb": False,
    }


def _publish(one: PlannedShard, raw: Path, layout: KeyLayout, settings: Shard, lake: Lake, scratch: Path) -> Part:
    name = layout.shard_name(one.number)
    table = tidy_parquet(raw / f"{name}.parquet", [row["url"] for row in one.rows], layout, one.number)
    tidy = scratch / f"tidy-{name}"
    tidy.mkdir()
    write_tar(tidy_samples(raw / f"{name}.tar", table), tidy / f"{name}.tar")
    pq.write_table(table, tidy / f"{name}.parquet")
    (raw / f"{name}_stats.json").replace(tidy / f"{name}_stats.json")
    entries = (
        lake.publish_if_new(tidy / f"{name}.tar", f"shards/{name}.tar"),
        lake.publish_if_new(tidy / f"{name}.parquet", f"shards/{name}.parquet"),
        lake.publish(tidy / f"{name}_stats.json", f"shards/{name}_stats.json", timed=True),
    )
    for left in raw.glob(f"{name}.*"):
        left.unlink()
    num_samples = sum(status == SUCCESS for status in table["status"].to_pylist())
    part = Part(name=name, identity=one.identity(settings), files=entries, details={"num_samples": num_samples})
    manifests.publish_part(lake, STAGE, part)
    log.info("shard %s (%s): %d of %d pictures", name, one.split, num_samples, len(one.rows))
    return part


def _manifest(
    kept: list[dict[str, Any]],
    planned: list[PlannedShard],
    parts: dict[int, Part],
    layout: KeyLayout,
    size: int,
    first_new: int,
    settings: Shard,
    inputs: dict[str, str],
    lake: Lake,
    base: Manifest | None,
) -> Manifest:
    live = {row["sample"] for row in kept}
    placed: set[str] = set()
    tombstones: list[str] = []
    reasons: Counter[str] = Counter()
    num_out = 0
    for one in planned:
        for row in read_rows(lake, f"shards/{layout.shard_name(one.number)}.parquet"):
            if row["sample"] not in live or row["sample"] in placed:
                tombstones.append(row["key"])
                continue
            placed.add(row["sample"])
            if row["status"] == SUCCESS:
                num_out += 1
            else:
                reasons[f"img2dataset: {row['error_message'] or row['status']}"[:80]] += 1
    return Manifest.make(
        stage=STAGE,
        version=VERSION,
        recipe=settings.what(),
        inputs=inputs,
        counts=Counts(in_=len(kept), out=num_out, dropped=dict(sorted(reasons.items()))),
        files=[entry for part in parts.values() for entry in part.files],
        details={
            "layout": str(layout),
            "samples_per_shard": size,
            "base": base.identity if base else None,
            "first_new": first_new,
            "shards": [
                {
                    "number": one.number,
                    "split": one.split,
                    "num_rows": len(one.rows),
                    "num_samples": parts[one.number].details["num_samples"],
                }
                for one in planned
            ],
            "tombstones": sorted(tombstones),
        },
        versions=library_versions("img2dataset", "opencv-python-headless", "pyarrow", "webdataset"),
        previous=manifests.latest(lake, STAGE),
    )
