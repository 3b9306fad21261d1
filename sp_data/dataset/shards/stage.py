"""Shards: kept pictures as webdataset tars, by img2dataset (img2dataset_run.py), as planned (shard_plan.py).

    shards/00007.tar          000070042.jpg  000070042.json  000070042.txt  ...  in key order
    shards/00007.parquet      one row an input row, failed ones too: key, status, error_message, title, split, ...
    shards/00007_stats.json   img2dataset's own; the one file that carries times

A shard is of one split only and is never written again once a manifest names it. A later catalogue adds new shards for
what is new; what is gone or changed leaves a tombstone.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import copies_missing, kept_blocks
from sp_data.dataset.shards.img2dataset import INPUT_SCHEMA, Img2datasetRun
from sp_data.dataset.shards.plan import (
    MADE_OF,
    Kept,
    NewShard,
    PlannedShard,
    from_hex,
    hex_of,
    identity_of_shard,
    rows_of,
    samples_in,
)
from sp_data.dataset.shards.tars import SUCCESS, tidy_parquet, tidy_samples, write_tar
from sp_data.errors import StageError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, Part
from sp_data.parquet import read_table
from sp_data.recipe import Shard
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import VERSION_OF, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "shard"
VERSION = VERSION_OF[STAGE]
KEPT_COLUMNS = [name for name in INPUT_SCHEMA.names if name != "sample"]
COPIED_AT_ONCE = 20_000
"""Pictures of a remote lake that are copied to this machine for one run of img2dataset."""


@dataclass(frozen=True, slots=True)
class Base:
    """What an earlier snapshot leaves to this one: the shards that stay, and the number of the first new one."""

    snapshot: Manifest | None
    shards: list[dict[str, Any]]
    first_new: int


@dataclass(slots=True)
class Account:
    """What became of every row, shard by shard: what lives, what failed and why, what is gone."""

    kept: Kept
    num_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tombstones: list[str] = field(default_factory=list)
    placed: npt.NDArray[np.bool_] = field(init=False)
    """By place in `kept`."""

    def __post_init__(self) -> None:
        self.placed = np.zeros(len(self.kept), dtype=bool)

    def add(self, rows: pa.Table) -> None:
        """`rows` of a shard's parquet: key, sample, status, error_message."""
        places = self.kept.places(from_hex(rows["sample"].to_pylist()))
        said = (rows[name].to_pylist() for name in ("key", "status", "error_message"))
        for place, key, status, error in zip(places.tolist(), *said, strict=True):
            if place < 0 or self.placed[place]:
                self.tombstones.append(key)
                continue
            self.placed[place] = True
            if status == SUCCESS:
                self.num_out += 1
            else:
                self.reasons[f"img2dataset: {error or status}"[:80]] += 1


def shard(
    curated: Manifest,
    settings: Shard,
    lake: Lake,
    *,
    leave_out: frozenset[int] = frozenset(),
    progress: Progress = SILENT,
) -> StageResult:
    """Publish every kept picture that is in no shard yet in new shards, and tombstones for what is gone.

    `leave_out` are numbers of shards that the new snapshot shall not have: what lives in them gets new keys
    (compact.py).

    Raises StageError if img2dataset fails or nothing was kept, StageNotDone if a picture that curate published is
    missing.
    """
    with lake.writer():
        inputs = {"curate": curated.digest}
        identity = manifests.identity_of(STAGE, VERSION, settings.what(), inputs)
        done = manifests.is_done(lake, STAGE, identity)
        if done and not leave_out:
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        if missing := copies_missing(lake, curated):
            raise StageNotDone(f"{lake.full(missing[0])} is missing or cut; run `sp-data curate` first")
        kept = Kept(kept_blocks(lake, curated, MADE_OF))
        if not len(kept):
            raise StageError(
                f"curate kept none of {curated.counts.in_:,} pictures ({_reasons(curated)}), so there is nothing to "
                "put into shards; `sp-data why` names them, the fields below `curate` decide"
            )
        base = _base(lake, settings, identity, leave_out)
        size = settings.samples_per_shard or (
            int(base.snapshot.details["samples_per_shard"]) if base.snapshot else choose_shard_size(len(kept))
        )
        layout = KeyLayout.of_shards(size)
        made = _Making(curated, kept, base, layout, size, settings, lake, progress)
        planned, parts = made.work()
        manifest = _manifest(kept, planned, parts, layout, size, base.first_new, settings, inputs, lake)
        manifests.publish(lake, manifest)
        log.info(
            "shard: %d samples in %d shards, layout %s",
            manifest.counts.out,
            len(manifest.details["shards"]),
            str(layout),
        )
        return StageResult(manifest, "done")


def _reasons(curated: Manifest) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in curated.counts.dropped.items()) or "it was given none"


def choose_shard_size(num_samples: int) -> int:
    """At least 20 shards where there are pictures enough, and never beyond img2dataset's usual 10,000 a shard."""
    return max(10, min(10_000, num_samples // 25))


def _base(lake: Lake, settings: Shard, identity: str, leave_out: frozenset[int]) -> Base:
    """The snapshot whose shards stay, and the number of the first new one.

    If this very identity was published before, some of its files are gone: then what stays is what stayed at that time,
    so that the plan, and with it every byte, comes out the same. Where that is not known any more, because a shard that
    stayed lost its parquet, all that is whole stays, and what was in the lost ones gets new keys.
    """
    published = manifests.all_of(lake, STAGE)
    # No number is given twice, whatever version of the stage gave it. A compaction that needed no new shard leaves no
    # other trace of the numbers it took out; and those of a dataset that only a checkpoint names are its own.
    named = [*published, *manifests.all_of(lake, "verify")]
    used = [shard["number"] for manifest in named for shard in manifest.details["shards"]]
    used += [int(manifest.details.get("first_new", 0)) - 1 for manifest in published]
    base = manifests.latest(lake, STAGE)
    for manifest in published if not leave_out else ():
        if manifest.identity == identity:
            first_new = int(manifest.details["first_new"])
            stayed = [one for one in manifest.details["shards"] if one["number"] < first_new]
            if all(has_parquet(lake, manifest, one["number"]) for one in stayed):
                return Base(manifest, stayed, first_new)
            base = manifest
    if base is None or base.version != VERSION or base.recipe != settings.what():
        return Base(None, [], max(used, default=-1) + 1)
    stay = [one for one in base.details["shards"] if one["number"] not in leave_out]
    return Base(base, stay, max(used, default=-1) + 1)


def has_parquet(lake: Lake, manifest: Manifest, number: int) -> bool:
    """Whether the rows of a shard are there, by the size of their file."""
    path = f"shards/{KeyLayout.parse(manifest.details['layout']).shard_name(number)}.parquet"
    return lake.size(path) == manifest.file(path).bytes


def read_rows(lake: Lake, path: str) -> list[dict[str, Any]]:
    """Rows of one shard's parquet, in key order. Raises CorruptFile."""
    with lake.local(path) as local:
        rows: list[dict[str, Any]] = read_table(local, lake.full(path)).to_pylist()
        return rows


def read_columns(lake: Lake, path: str, columns: list[str]) -> pa.Table:
    """Some columns of one shard's parquet, in key order. Raises CorruptFile."""
    with lake.local(path) as local:
        return read_table(local, lake.full(path), columns)


class _Making:
    """One snapshot's shards on the way: those that stay, those that are new, and img2dataset for what is not there."""

    def __init__(
        self,
        curated: Manifest,
        kept: Kept,
        base: Base,
        layout: KeyLayout,
        size: int,
        settings: Shard,
        lake: Lake,
        progress: Progress,
    ) -> None:
        self.curated, self.kept, self.base, self.layout, self.size = curated, kept, base, layout, size
        self.settings, self.lake, self.progress = settings, lake, progress
        self.what = settings.what()
        self.left = manifests.Parts(lake, STAGE)
        self.planned: list[PlannedShard] = []
        self.parts: dict[int, Part] = {}

    def work(self) -> tuple[list[PlannedShard], dict[int, Part]]:
        """Every shard of the snapshot and its part; what is not in the lake yet is made, and published one by one."""
        placed, lost = self._stay()
        new = self.kept.plan(placed, self.size, self.base.first_new)
        num_new = sum(len(one.rows) for one in new)
        self.progress.begin(STAGE, sum(one.num_rows for one in self.planned) + num_new, "pictures")
        for one in self.planned:
            self.progress.advance(one.num_rows if one.number in self.parts else 0)
        with self.lake.scratch("plan") as folder:
            self._make(self._missing(lost, new, folder))
        return self.planned, self.parts

    def _stay(self) -> tuple[npt.NDArray[np.bool_], list[PlannedShard]]:
        """Which samples are in shards that stay (by place), and which of those shards lost a file.

        A shard whose parquet is gone does not stay: its pictures count as not placed and get new keys.
        """
        placed = np.zeros(len(self.kept), dtype=bool)
        lost = []
        for listed in self.base.shards:
            path = self._parquet(listed["number"])
            if self.base.snapshot is None or not has_parquet(self.lake, self.base.snapshot, listed["number"]):
                log.warning("shard: %s is missing or cut; its pictures get new keys", self.lake.full(path))
                continue
            rows = read_columns(self.lake, path, ["sample", "path", "url"])
            columns = [rows[name].to_pylist() for name in ("sample", "path", "url")]
            identity = identity_of_shard(listed["number"], listed["split"], zip(*columns, strict=True), self.what)
            one = PlannedShard(listed["number"], listed["split"], len(rows), identity)
            places = self.kept.places(from_hex(columns[0]))
            placed[places[places >= 0]] = True
            if not self._find(one):
                lost.append(one)
        return placed, lost

    def _find(self, one: PlannedShard) -> bool:
        """Take a planned shard into the snapshot; whether it is in the lake already."""
        self.planned.append(one)
        part = self.left.find(self.layout.shard_name(one.number), one.identity)
        if part is not None:
            self.parts[one.number] = part
        return part is not None

    def _missing(
        self, lost: list[PlannedShard], new: list[NewShard], folder: Path
    ) -> Iterator[tuple[PlannedShard, pa.Table]]:
        """What has to be made, with its rows."""
        for one in lost:
            yield one, read_columns(self.lake, self._parquet(one.number), INPUT_SCHEMA.names)
        if not new:
            return
        blocks = kept_blocks(self.lake, self.curated, KEPT_COLUMNS)
        for shard, rows in rows_of(new, blocks, len(self.kept), folder):
            samples = hex_of(samples_in(rows))
            identity = identity_of_shard(
                shard.number,
                shard.split,
                zip(samples, rows["path"].to_pylist(), rows["url"].to_pylist(), strict=True),
                self.what,
            )
            one = PlannedShard(shard.number, shard.split, len(rows), identity)
            if self._find(one):
                self.progress.advance(one.num_rows)
            else:
                yield one, rows.append_column("sample", pa.array(samples, pa.string()))

    def _make(self, missing: Iterator[tuple[PlannedShard, pa.Table]]) -> None:
        following = next(missing, None)
        while following is not None:
            with self.lake.scratch(STAGE) as scratch:
                run = Img2datasetRun(self.layout, self.settings, self.lake, scratch)
                num_copied = 0
                while following is not None and (self.lake.is_local or num_copied < COPIED_AT_ONCE):
                    run.add(*following)
                    num_copied += following[0].num_rows
                    following = next(missing, None)
                with contextlib.closing(run.finished()) as finished:
                    for one, raw in finished:
                        self.parts[one.number] = self._publish(one, run.addresses(one), raw, scratch)
                        self.progress.advance(one.num_rows)

    def _publish(self, one: PlannedShard, addresses: list[str], raw: Path, scratch: Path) -> Part:
        name, lake = self.layout.shard_name(one.number), self.lake
        table = tidy_parquet(raw / f"{name}.parquet", addresses, self.layout, one.number)
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
        part = Part(name=name, identity=one.identity, files=entries, details={"num_samples": num_samples})
        manifests.publish_part(lake, STAGE, part)
        log.info("shard %s (%s): %d of %d pictures", name, one.split, num_samples, one.num_rows)
        return part

    def _parquet(self, number: int) -> str:
        return f"shards/{self.layout.shard_name(number)}.parquet"


def _manifest(
    kept: Kept,
    planned: list[PlannedShard],
    parts: dict[int, Part],
    layout: KeyLayout,
    size: int,
    first_new: int,
    settings: Shard,
    inputs: dict[str, str],
    lake: Lake,
) -> Manifest:
    account = Account(kept)
    for one in planned:
        path = f"shards/{layout.shard_name(one.number)}.parquet"
        account.add(read_columns(lake, path, ["key", "sample", "status", "error_message"]))
    return Manifest.make(
        stage=STAGE,
        version=VERSION,
        recipe=settings.what(),
        inputs=inputs,
        counts=Counts(in_=len(kept), out=account.num_out, dropped=dict(sorted(account.reasons.items()))),
        files=[entry for part in parts.values() for entry in part.files],
        details={
            "layout": str(layout),
            "samples_per_shard": size,
            "first_new": first_new,
            "shards": [
                {
                    "number": one.number,
                    "split": one.split,
                    "num_rows": one.num_rows,
                    "num_samples": parts[one.number].details["num_samples"],
                }
                for one in planned
            ],
            "tombstones": sorted(account.tombstones),
        },
        versions=library_versions("img2dataset", "opencv-python-headless", "pyarrow", "webdataset"),
        previous=manifests.latest(lake, STAGE),
    )
