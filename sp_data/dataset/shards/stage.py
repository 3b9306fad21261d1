"""Shards: kept pictures as webdataset tars, by img2dataset (img2dataset.py), as planned (plan.py).

    shards/00007.tar          000070042.jpg  000070042.json  000070042.txt  ...  in key order
    shards/00007.parquet      one row per input row, failed ones too: key, status, error_message, title, split, ...
    shards/00007_stats.json   img2dataset's own; the only file that contains times

A shard belongs to one split and is never written again once a manifest names it. New pictures of a later catalogue go
into new shards; a picture that is gone or changed leaves a tombstone.
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
"""How many pictures of a remote lake are copied to this machine for one run of img2dataset."""


@dataclass(frozen=True, slots=True)
class Base:
    """What this snapshot builds on: an earlier one, those of its shards that stay, and the first new number."""

    snapshot: Manifest | None
    shards: list[dict[str, Any]]
    first_new: int


@dataclass(slots=True)
class Account:
    """What became of every row, counted shard by shard: alive, failed and why, or gone."""

    kept: KeptSamples
    num_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tombstones: list[str] = field(default_factory=list)
    placed: npt.NDArray[np.bool_] = field(init=False)
    """Whether a shard has the sample, by its place in `kept`."""

    def __post_init__(self) -> None:
        self.placed = np.zeros(len(self.kept), dtype=bool)

    def add(self, rows: pa.Table) -> None:
        """Count the `rows` of a shard's parquet: key, sample, status, error_message."""
        places = self.kept.places(from_hex(rows["sample"].to_pylist()))
        columns = (rows[name].to_pylist() for name in ("key", "status", "error_message"))
        for place, key, status, error in zip(places.tolist(), *columns, strict=True):
            if place < 0 or self.placed[place]:
                self.tombstones.append(key)
                continue
            self.placed[place] = True
            if status == SUCCESS:
                self.num_out += 1
            else:
                self.reasons[f"img2dataset: {error or status}"[:80]] += 1


def shard(run: StageRun, *, leave_out: frozenset[int] = frozenset()) -> StageResult:
    """Put every kept picture that is in no shard yet into new shards, and list tombstones for those that are gone.

    `leave_out` are numbers of shards that the new snapshot shall not have: their living pictures get new keys
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
            f"put into shards; {lake.command('why --recipe')} says why each was dropped, and `curate` in the recipe "
            "sets the limits"
        )
    base = _base(run, leave_out)
    size = settings.samples_per_shard or (
        int(base.snapshot.details["samples_per_shard"]) if base.snapshot else choose_shard_size(len(kept))
    )
    layout = KeyLayout.of_shards(size)
    planned, parts = ShardMaker(run, kept, base, layout, size).work()
    return _output(kept, planned, parts, layout, size, base.first_new, lake)


def _reasons(curated: Manifest) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in curated.counts.dropped.items()) or "it got none"


def choose_shard_size(num_samples: int) -> int:
    """Pictures per shard: at least 20 shards where there are enough, and at most img2dataset's usual 10,000 a shard."""
    return max(10, min(10_000, num_samples // 25))


def _base(run: StageRun, leave_out: frozenset[int]) -> Base:
    """The snapshot whose shards stay, and the number of the first new one.

    If this identity was published before, some of its files are gone. Then the same shards stay as at that time, so
    that the plan, and with it every byte, comes out the same. If one of those lost its parquet, the plan is not known
    any more: all intact shards stay, and the pictures of the others get new keys.
    """
    lake = run.lake
    published = manifests.all_of(lake, run.stage)
    # No number is used twice, not even by another version of the stage. A compaction that needed no new shard leaves no
    # other trace of the numbers it removed; and a dataset that only a checkpoint refers to keeps its own.
    manifests_with_shards = [*published, *manifests.all_of(lake, "verify")]
    used = [shard["number"] for manifest in manifests_with_shards for shard in manifest.details["shards"]]
    used += [int(manifest.details.get("first_new", 0)) - 1 for manifest in published]
    base = run.newest()
    # Two files hold the newest snapshot, and one of them may be gone.
    for manifest in (*published, *([base] if base else ())) if not leave_out else ():
        if manifest.identity == run.identity:
            first_new = int(manifest.details["first_new"])
            old_shards = [shard for shard in manifest.details["shards"] if shard["number"] < first_new]
            if all(has_parquet(lake, manifest, shard["number"]) for shard in old_shards):
                return Base(manifest, old_shards, first_new)
            base = manifest
    if base is None or base.version != run.version or base.recipe != run.identity_fields:
        return Base(None, [], max(used, default=-1) + 1)
    old_shards = [shard for shard in base.details["shards"] if shard["number"] not in leave_out]
    return Base(base, old_shards, max(used, default=-1) + 1)


def has_parquet(lake: Lake, manifest: Manifest, number: int) -> bool:
    """Whether a shard's parquet is there with its size."""
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


class ShardMaker:
    """Collects the shards of one snapshot, those that stay and new ones, and has img2dataset make the missing ones."""

    def __init__(self, run: StageRun, kept: KeptSamples, base: Base, layout: KeyLayout, size: int) -> None:
        self.run = run
        self.kept = kept
        self.base = base
        self.layout = layout
        self.size = size
        self.curated = run.inputs["curate"]
        self.settings = run.recipe.shard
        self.lake = run.lake
        self.progress = run.progress
        self.earlier_parts = manifests.ShardParts(run.lake, run.stage)
        self.planned: list[PlannedShard] = []
        self.parts: dict[int, ShardPart] = {}

    def work(self) -> tuple[list[PlannedShard], dict[int, ShardPart]]:
        """Every shard of the snapshot, and its part. Those that the lake lacks are made, and published one by one."""
        placed, lost = self._keep_shards()
        new = self.kept.plan(placed, self.size, self.base.first_new)
        num_new = sum(len(shard.rows) for shard in new)
        self.progress.begin(self.run.stage, sum(shard.num_rows for shard in self.planned) + num_new, "pictures")
        for shard in self.planned:
            self.progress.advance(shard.num_rows if shard.number in self.parts else 0)
        with self.lake.scratch("plan") as folder:
            self._make(self._missing(lost, new, folder))
        return self.planned, self.parts

    def _keep_shards(self) -> tuple[npt.NDArray[np.bool_], list[PlannedShard]]:
        """Which samples are in shards that stay (by place), and which of those shards lost a file.

        A shard whose parquet is gone does not stay: its pictures count as not placed and get new keys.
        """
        placed = np.zeros(len(self.kept), dtype=bool)
        lost = []
        for entry in self.base.shards:
            path = self._parquet(entry["number"])
            if self.base.snapshot is None or not has_parquet(self.lake, self.base.snapshot, entry["number"]):
                log.warning("shard: %s is missing or cut; its pictures get new keys", self.lake.full(path))
                continue
            rows = read_columns(self.lake, path, ["sample", "path", "url"])
            columns = [rows[name].to_pylist() for name in ("sample", "path", "url")]
            identity = self._identity(entry["number"], entry["split"], *columns)
            shard = PlannedShard(entry["number"], entry["split"], len(rows), identity)
            places = self.kept.places(from_hex(columns[0]))
            placed[places[places >= 0]] = True
            if not self._add(shard):
                lost.append(shard)
        return placed, lost

    def _identity(self, number: int, split: str, samples: list[str], paths: list[str], urls: list[str]) -> str:
        rows = zip(samples, paths, urls, strict=True)
        return identity_of_shard(number, split, rows, self.run.version, self.run.identity_fields)

    def _add(self, shard: PlannedShard) -> bool:
        """Add a planned shard to the snapshot; true if it is in the lake already."""
        self.planned.append(shard)
        part = self.earlier_parts.find(self.layout.shard_name(shard.number), shard.identity)
        if part is not None:
            self.parts[shard.number] = part
        return part is not None

    def _missing(
        self, lost: list[PlannedShard], new: list[NewShard], folder: Path
    ) -> Iterator[tuple[PlannedShard, pa.Table]]:
        """The shards that have to be made, with their rows."""
        for shard in lost:
            yield shard, read_columns(self.lake, self._parquet(shard.number), INPUT_SCHEMA.names)
        if not new:
            return
        blocks = kept_blocks(self.lake, self.curated, KEPT_COLUMNS)
        for new_shard, rows in rows_of(new, blocks, len(self.kept), folder):
            samples = hex_of(samples_in(rows))
            columns = (rows["path"].to_pylist(), rows["url"].to_pylist())
            identity = self._identity(new_shard.number, new_shard.split, samples, *columns)
            shard = PlannedShard(new_shard.number, new_shard.split, len(rows), identity)
            if self._add(shard):
                self.progress.advance(shard.num_rows)
            else:
                yield shard, rows.append_column("sample", pa.array(samples, pa.string()))

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
                    for shard, raw in finished:
                        self.parts[shard.number] = self._publish(shard, run.addresses(shard), raw, scratch)
                        self.progress.advance(shard.num_rows)

    def _publish(self, shard: PlannedShard, addresses: list[str], raw: Path, scratch: Path) -> ShardPart:
        name, lake = self.layout.shard_name(shard.number), self.lake
        table = tidy_parquet(raw / f"{name}.parquet", addresses, self.layout, shard.number)
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
        for file in raw.glob(f"{name}.*"):
            file.unlink()
        num_samples = sum(status == SUCCESS for status in table["status"].to_pylist())
        part = ShardPart(name=name, identity=shard.identity, files=entries, details={"num_samples": num_samples})
        manifests.publish_part(lake, self.run.stage, part)
        log.info("shard %s (%s): %d of %d pictures", name, shard.split, num_samples, shard.num_rows)
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
    for shard in planned:
        path = f"shards/{layout.shard_name(shard.number)}.parquet"
        account.add(read_columns(lake, path, ["key", "sample", "status", "error_message"]))
    return StageOutput(
        counts=Counts(in_=len(kept), out=account.num_out, dropped=dict(sorted(account.reasons.items()))),
        files=[entry for part in parts.values() for entry in part.files],
        summary=f"{account.num_out} samples in {len(planned)} shards, layout {layout}",
        details={
            "layout": str(layout),
            "samples_per_shard": size,
            "first_new": first_new,
            "shards": [
                {
                    "number": shard.number,
                    "split": shard.split,
                    "num_rows": shard.num_rows,
                    "num_samples": parts[shard.number].details["num_samples"],
                }
                for shard in planned
            ],
            "tombstones": sorted(account.tombstones),
        },
        versions=library_versions("img2dataset", "opencv-python-headless", "pyarrow", "webdataset"),
    )
