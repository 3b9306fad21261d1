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
    KeptSamples,
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
from sp_data.manifest import Counts, Manifest, ShardPart
from sp_data.parquet import read_table
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

log = logging.getLogger(__name__)

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

    kept: KeptSamples
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


def shard(run: StageRun, *, leave_out: frozenset[int] = frozenset()) -> StageResult:
    """Publish every kept picture that is in no shard yet in new shards, and tombstones for what is gone.

    `leave_out` are numbers of shards that the new snapshot shall not have: what lives in them gets new keys
    (upkeep/compact.py).

    Raises StageError if img2dataset fails or nothing was kept, StageNotDone if a picture that curate published is
    missing.
    """
    return run.once(lambda: _shard(run, leave_out), again=bool(leave_out))


def _shard(run: StageRun, leave_out: frozenset[int]) -> StageOutput:
    curated, settings, lake = run.inputs["curate"], run.recipe.shard, run.lake
    if missing := copies_missing(lake, curated):
        raise StageNotDone(f"{lake.full(missing[0])} is missing or cut; run {lake.command('curate')} first")
    kept = KeptSamples(kept_blocks(lake, curated, MADE_OF))
    if not len(kept):
        raise StageError(
            f"curate kept none of {curated.counts.in_:,} pictures ({_reasons(curated)}), so there is nothing to "
            "put into shards; `sp-data why` names them, the fields below `curate` decide"
        )
    base = _base(run, leave_out)
    size = settings.samples_per_shard or (
        int(base.snapshot.details["samples_per_shard"]) if base.snapshot else choose_shard_size(len(kept))
    )
    layout = KeyLayout.of_shards(size)
    planned, parts = _Making(run, kept, base, layout, size).work()
    output = _output(kept, planned, parts, layout, size, base.first_new, lake)
    log.info("shard: %d samples in %d shards, layout %s", output.counts.out, len(planned), layout)
    return output


def _reasons(curated: Manifest) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in curated.counts.dropped.items()) or "it was given none"


def choose_shard_size(num_samples: int) -> int:
    """At least 20 shards where there are pictures enough, and never beyond img2dataset's usual 10,000 a shard."""
    return max(10, min(10_000, num_samples // 25))


def _base(run: StageRun, leave_out: frozenset[int]) -> Base:
    """The snapshot whose shards stay, and the number of the first new one.

    If this very identity was published before, some of its files are gone: then what stays is what stayed at that time,
    so that the plan, and with it every byte, comes out the same. Where that is not known any more, because a shard that
    stayed lost its parquet, all that is whole stays, and what was in the lost ones gets new keys.
    """
    lake = run.lake
    published = manifests.all_of(lake, run.stage)
    # No number is given twice, whatever version of the stage gave it. A compaction that needed no new shard leaves no
    # other trace of the numbers it took out; and those of a dataset that only a checkpoint names are its own.
    named = [*published, *manifests.all_of(lake, "verify")]
    used = [shard["number"] for manifest in named for shard in manifest.details["shards"]]
    used += [int(manifest.details.get("first_new", 0)) - 1 for manifest in published]
    base = run.newest()
    for manifest in published if not leave_out else ():
        if manifest.identity == run.identity:
            first_new = int(manifest.details["first_new"])
            stayed = [one for one in manifest.details["shards"] if one["number"] < first_new]
            if all(has_parquet(lake, manifest, one["number"]) for one in stayed):
                return Base(manifest, stayed, first_new)
            base = manifest
    if base is None or base.version != run.version or base.recipe != run.identity_fields:
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

    def __init__(self, run: StageRun, kept: KeptSamples, base: Base, layout: KeyLayout, size: int) -> None:
        self.run, self.kept, self.base, self.layout, self.size = run, kept, base, layout, size
        self.curated, self.settings, self.lake, self.progress = (
            run.inputs["curate"],
            run.recipe.shard,
            run.lake,
            run.progress,
        )
        self.left = manifests.ShardParts(run.lake, run.stage)
        self.planned: list[PlannedShard] = []
        self.parts: dict[int, ShardPart] = {}

    def work(self) -> tuple[list[PlannedShard], dict[int, ShardPart]]:
        """Every shard of the snapshot and its part; what is not in the lake yet is made, and published one by one."""
        placed, lost = self._stay()
        new = self.kept.plan(placed, self.size, self.base.first_new)
        num_new = sum(len(one.rows) for one in new)
        self.progress.begin(self.run.stage, sum(one.num_rows for one in self.planned) + num_new, "pictures")
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
            identity = self._identity(listed["number"], listed["split"], *columns)
            one = PlannedShard(listed["number"], listed["split"], len(rows), identity)
            places = self.kept.places(from_hex(columns[0]))
            placed[places[places >= 0]] = True
            if not self._find(one):
                lost.append(one)
        return placed, lost

    def _identity(self, number: int, split: str, samples: list[str], paths: list[str], urls: list[str]) -> str:
        rows = zip(samples, paths, urls, strict=True)
        return identity_of_shard(number, split, rows, self.run.version, self.run.identity_fields)

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
            columns = (rows["path"].to_pylist(), rows["url"].to_pylist())
            identity = self._identity(shard.number, shard.split, samples, *columns)
            one = PlannedShard(shard.number, shard.split, len(rows), identity)
            if self._find(one):
                self.progress.advance(one.num_rows)
            else:
                yield one, rows.append_column("sample", pa.array(samples, pa.string()))

    def _make(self, missing: Iterator[tuple[PlannedShard, pa.Table]]) -> None:
        following = next(missing, None)
        while following is not None:
            with self.lake.scratch(self.run.stage) as scratch:
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

    def _publish(self, one: PlannedShard, addresses: list[str], raw: Path, scratch: Path) -> ShardPart:
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
        part = ShardPart(name=name, identity=one.identity, files=entries, details={"num_samples": num_samples})
        manifests.publish_part(lake, self.run.stage, part)
        log.info("shard %s (%s): %d of %d pictures", name, one.split, num_samples, one.num_rows)
        return part

    def _parquet(self, number: int) -> str:
        return f"shards/{self.layout.shard_name(number)}.parquet"


def _output(
    kept: KeptSamples,
    planned: list[PlannedShard],
    parts: dict[int, ShardPart],
    layout: KeyLayout,
    size: int,
    first_new: int,
    lake: Lake,
) -> StageOutput:
    account = Account(kept)
    for one in planned:
        path = f"shards/{layout.shard_name(one.number)}.parquet"
        account.add(read_columns(lake, path, ["key", "sample", "status", "error_message"]))
    return StageOutput(
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
    )
