"""Put CLIP embeddings in the order their pictures have inside the shards.

clip-retrieval writes row r of img_emb_0.npy for whichever picture came r-th; the decoder reads row 42 of
img_emb_00007.npy for the picture 000070042. Where a picture failed the row is zero: the loader relies on it.

    reordered/<clip>/img_emb/img_emb_00007.npy     (rows of the shard, dim), dtype of the embeddings
    reordered/<clip>/text_emb/text_emb_00007.npy

Out of core: `plan` gives every row its place, `moving` takes a block of rows at a time, a thread a shard.
`reorder_folder` does the same for any output of clip-retrieval, without a lake.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.moving import NotFinite, Sources, write_rows
from sp_data.dataset.partitions import KINDS, Partition
from sp_data.dataset.plan import NO_ROW, Plan, keys_of, plan_rows
from sp_data.errors import CorruptFile
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, Part
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Reorder
from sp_data.stage import VERSION_OF, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "reorder"
VERSION = VERSION_OF[STAGE]


@dataclass(frozen=True, slots=True)
class Target:
    """One file to make: a shard's rows of one kind."""

    shard: int
    kind: str
    rows: npt.NDArray[np.int64]
    """`(slots of the shard,)`: row of all partitions, or NO_ROW."""

    @property
    def num_zero_rows(self) -> int:
        return int(np.count_nonzero(self.rows == NO_ROW))


def write_target(target: Target, layout: KeyLayout, sources: Sources, path: Path) -> None:
    """Write one file. Raises CorruptFile if a row of it holds NaN or an infinity."""
    try:
        with path.open("wb") as stream:
            write_rows(target.rows, sources, stream)
    except NotFinite as odd:
        raise CorruptFile(
            f"the {target.kind} of {layout.key(target.shard, odd.index)} holds NaN or an infinity; embed it again"
        ) from odd


def reorder(
    sharded: Manifest, embedded: Manifest, settings: Reorder, lake: Lake, *, progress: Progress = SILENT
) -> StageResult:
    """Reorder the embeddings of a dataset. The widths come from the shard manifest and are never asked.

    Raises DuplicateKey, KeyOutsideShard, and CorruptFile for a partition that is cut, of another width or dtype, or
    holds NaN.
    """
    with lake.writer():
        inputs = {"shard": sharded.digest, "embed": embedded.digest}
        identity = manifests.identity_of(STAGE, VERSION, settings.what(), inputs)
        if done := manifests.is_done(lake, STAGE, identity):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        layout = KeyLayout.parse(sharded.details["layout"])
        num_rows = {shard["number"]: shard["num_rows"] for shard in sharded.details["shards"]}
        progress.begin(STAGE, len(KINDS) * len(num_rows), "files")
        with contextlib.ExitStack() as files, lake.scratch(STAGE) as scratch:
            partitions = _partitions(embedded, lake, files)
            keys = keys_of(partitions[KINDS[0]], scratch, layout.width)
            plan = plan_rows(keys, layout, num_rows, scratch)
            parts = _make(plan, partitions, embedded, settings, lake, progress)
        made = Manifest.make(
            stage=STAGE,
            version=VERSION,
            recipe=settings.what(),
            inputs=inputs,
            counts=Counts(in_=embedded.counts.out, out=plan.num_placed),
            files=[entry for part in parts for entry in part.files],
            details={
                "layout": str(layout),
                "clip": embedded.details["clip"],
                "dim": int(embedded.details["dim"]),
                "dtype": embedded.details["dtype"],
                "num_zero_rows": sum(num_rows.values()) - plan.num_placed,
            },
            versions=library_versions("numpy", "pyarrow"),
            previous=manifests.latest(lake, STAGE),
        )
        manifests.publish(lake, made)
        log.info("reorder: %d rows into %d files, layout %s", plan.num_placed, len(made.files), layout)
        return StageResult(made, "done")


def _partitions(embedded: Manifest, lake: Lake, files: contextlib.ExitStack) -> dict[str, list[Partition]]:
    """Every partition of each kind, by number; the files stay within reach until `files` is closed."""
    named: dict[str, dict[str, Path]] = {}
    for entry in embedded.files:
        stem, _, number = Path(entry.path).stem.rpartition("_")
        named.setdefault(number, {})[stem] = files.enter_context(lake.local(entry.path))
    return {
        kind: [Partition(named[number][kind], named[number]["metadata"]) for number in sorted(named)] for kind in KINDS
    }


def _make(
    plan: Plan,
    partitions: dict[str, list[Partition]],
    embedded: Manifest,
    settings: Reorder,
    lake: Lake,
    progress: Progress,
) -> list[Part]:
    """The part of every file; those that are not in the lake yet are made, a thread each, and published one by one."""
    clip, dim, dtype = embedded.details["clip"], int(embedded.details["dim"]), embedded.details["dtype"]
    digests = {Path(entry.path).name: entry.sha256 for entry in embedded.files}
    parts: list[Part] = []
    left = manifests.Parts(lake, STAGE)
    missing: list[tuple[Target, str, str]] = []
    sources = {kind: Sources.open(partitions[kind], dim, dtype) for kind in KINDS}
    for kind in KINDS:
        of_partition = [digests[partition.embeddings.name] for partition in partitions[kind]]
        for shard in sorted(plan.num_rows):
            target = Target(shard, kind, plan.of_shard(shard))
            name = f"{clip}-{kind}-{plan.layout.shard_name(shard)}"
            made_of = digest_of([VERSION, str(plan.layout), _made_of(target, sources[kind], of_partition)])
            if part := left.find(name, made_of):
                parts.append(part)
                progress.advance()
            else:
                missing.append((target, name, made_of))

    def make(job: tuple[Target, str, str]) -> Part:
        target, name, made_of = job
        file = f"{target.kind}_{plan.layout.shard_name(target.shard)}.npy"
        with lake.scratch(STAGE) as scratch:
            write_target(target, plan.layout, sources[target.kind], scratch / file)
            entry = lake.publish_if_new(scratch / file, f"reordered/{clip}/{target.kind}/{file}")
        part = Part(name=name, identity=made_of, files=(entry,))
        manifests.publish_part(lake, STAGE, part)
        return part

    with ThreadPoolExecutor(settings.threads or os.cpu_count()) as pool:
        for part, (target, _, _) in zip(pool.map(make, missing), missing, strict=True):
            parts.append(part)
            progress.advance()
            # From the thread that runs the stage: a Prefect run's log takes lines from no other.
            log_made(Path(part.files[0].path).name, target)
    return parts


def _made_of(target: Target, sources: Sources, digests: Iterable[str]) -> list[str]:
    """What a file is made of: its rows within their partitions, and the digests of those."""
    there = target.rows[target.rows != NO_ROW]
    used = np.unique(np.searchsorted(sources.starts, there, "right") - 1)
    named = list(digests)
    # Counted from the first partition used, so that a shard that is new does not make the old ones new.
    first = int(sources.starts[used[0]]) if used.size else 0
    relative = np.where(target.rows == NO_ROW, NO_ROW, target.rows - first)
    return [hashlib.sha256(relative.tobytes()).hexdigest(), *(named[number] for number in used)]


def log_made(file: str, target: Target) -> None:
    log.info("reorder %s: %d rows, %d of them zero", file, len(target.rows), target.num_zero_rows)
