"""Reorder: put CLIP embeddings in the order that their pictures have inside the shards.

clip-retrieval writes row r of img_emb_0.npy for whichever picture came r-th; the decoder reads row 42 of
img_emb_00007.npy for the picture 000070042. The row of a failed picture is zero: the loader relies on it.

    reordered/<clip>/img_emb/img_emb_00007.npy     (rows of the shard, dim), dtype of the embeddings
    reordered/<clip>/text_emb/text_emb_00007.npy

It works out of core: plan.py gives every row its slot, gather.py moves a block of rows at a time, with one thread a
shard. `reorder_folder` does the same for any output of clip-retrieval, without a lake.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.reorder.gather import NotFinite, Sources, write_rows
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS, Partition
from sp_data.dataset.reorder.plan import NO_ROW, Keys, ReorderPlan, keys_of, plan_rows
from sp_data.errors import CorruptFile
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, ShardPart
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import Progress
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

log = logging.getLogger(__name__)

STAGE = "reorder"


@dataclass(frozen=True, slots=True)
class Target:
    """One file to make: a shard's rows of one kind."""

    shard: int
    kind: str
    rows: npt.NDArray[np.int64]
    """`(slots of the shard,)`: row, counted over all partitions, or NO_ROW."""

    @property
    def num_zero_rows(self) -> int:
        return int(np.count_nonzero(self.rows == NO_ROW))


def write_target(target: Target, layout: KeyLayout, sources: Sources, path: Path) -> None:
    """Write one file. Raises CorruptFile if a row of it holds NaN or an infinity."""
    try:
        with path.open("wb") as stream:
            write_rows(target.rows, sources, stream)
    except NotFinite as error:
        raise CorruptFile(
            f"the {target.kind} of {layout.key(target.shard, error.index)} holds NaN or an infinity; embed it again"
        ) from error


@dataclass(frozen=True, slots=True)
class ReorderJob:
    """One file to make, and the partitions it needs. Plain values, so that it can be sent to another machine."""

    url: str
    dataset: str
    layout: KeyLayout
    clip: str
    target: Target
    """Its rows are counted over `sources`, in their order."""
    sources: tuple[tuple[str, int], ...]
    """For each partition its number, as in its file names, and how many rows it has."""
    dim: int
    dtype: str
    part: str
    made_of: str


def reorder(run: StageRun) -> StageResult:
    """Reorder the embeddings of a dataset. The key layout comes from the shard manifest, never from the user.

    Raises DuplicateKey, KeyOutsideShard, and CorruptFile for a partition that is cut, of another width or dtype, or
    holds NaN.
    """
    return run.once(lambda: _reorder(run))


def _reorder(run: StageRun) -> StageOutput:
    sharded, embedded, lake = run.inputs["shard"], run.inputs["embed"], run.lake
    layout = KeyLayout.parse(sharded.details["layout"])
    num_rows = {shard["number"]: shard["num_rows"] for shard in sharded.details["shards"]}
    run.progress.begin(STAGE, len(EMBEDDING_KINDS) * len(num_rows), "files")
    with lake.scratch(STAGE) as scratch:
        names, keys = _read_keys(embedded, layout, lake, scratch)
        plan = plan_rows(keys, layout, num_rows, scratch)
        jobs = _jobs(plan, keys, names, run)
        parts = _make(jobs, lake, run.runner or ThreadRunner(run.recipe.reorder.threads), run.progress)
    files = [entry for part in parts for entry in part.files]
    return StageOutput(
        counts=Counts(in_=embedded.counts.out, out=plan.num_placed),
        files=files,
        summary=f"{plan.num_placed} rows into {len(files)} files, layout {layout}",
        details={
            "layout": str(layout),
            "clip": embedded.details["clip"],
            "dim": int(embedded.details["dim"]),
            "dtype": embedded.details["dtype"],
            "num_zero_rows": sum(num_rows.values()) - plan.num_placed,
        },
        versions=library_versions("numpy", "pyarrow"),
    )


def _read_keys(embedded: Manifest, layout: KeyLayout, lake: Lake, scratch: Path) -> tuple[list[str], Keys]:
    """The partitions' numbers, as in their file names, and their keys; only the metadata is read."""
    paths = [entry.path for entry in embedded.files if "/metadata/" in entry.path]
    names = [Path(path).stem.rpartition("_")[2] for path in paths]
    with contextlib.ExitStack() as files:
        partitions = [
            Partition(Path(f"{EMBEDDING_KINDS[0]}_{name}.npy"), files.enter_context(lake.local(path)))
            for name, path in zip(names, paths, strict=True)
        ]
        return names, keys_of(partitions, scratch, layout.width)


def _jobs(plan: ReorderPlan, keys: Keys, names: list[str], run: StageRun) -> Iterator[ReorderJob]:
    """One job for each file of the snapshot."""
    embedded, lake = run.inputs["embed"], run.lake
    clip, dim, dtype = embedded.details["clip"], int(embedded.details["dim"]), embedded.details["dtype"]
    digests = {Path(entry.path).name: entry.sha256 for entry in embedded.files}
    for kind in EMBEDDING_KINDS:
        for shard in sorted(plan.num_rows):
            rows, used = _renumbered(plan.of_shard(shard), keys.starts)
            used_digests = [digests[f"{kind}_{names[number]}.npy"] for number in used]
            # Only the partitions that this file uses, and rows counted over them: a new shard does not change the
            # digest of an old one.
            made_of = digest_of(
                [run.version, str(plan.layout), [hashlib.sha256(rows.tobytes()).hexdigest(), *used_digests]]
            )
            yield ReorderJob(
                url=lake.url,
                dataset=lake.dataset,
                layout=plan.layout,
                clip=clip,
                target=Target(shard, kind, rows),
                sources=tuple((names[number], int(np.diff(keys.starts)[number])) for number in used),
                dim=dim,
                dtype=dtype,
                part=f"{clip}-{kind}-{plan.layout.shard_name(shard)}",
                made_of=made_of,
            )


def _renumbered(rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """The rows, counted over the partitions that they are in instead of over all, and those partitions."""
    of_row = np.searchsorted(starts, rows, "right") - 1
    used = np.unique(of_row[rows != NO_ROW])
    # Where each used partition begins, counted over the used ones.
    first = np.zeros(len(starts), dtype=np.int64)
    first[used] = np.concatenate([[0], np.cumsum(np.diff(starts)[used])])[:-1]
    return np.where(rows == NO_ROW, NO_ROW, rows - starts[of_row] + first[of_row]), used.tolist()


def make_file(job: ReorderJob) -> ShardPart:
    """Make and publish one file, then its part. Raises CorruptFile."""
    lake, kind, name = Lake(job.url, job.dataset), job.target.kind, job.layout.shard_name(job.target.shard)
    file = f"{kind}_{name}.npy"
    with contextlib.ExitStack() as files:
        folder = f"embeddings/{job.clip}"
        partitions = [
            Partition(
                files.enter_context(lake.local(f"{folder}/{kind}/{kind}_{number}.npy")),
                Path(f"{folder}/metadata/metadata_{number}.parquet"),
            )
            for number, _ in job.sources
        ]
        sources = Sources.open(partitions, [num_rows for _, num_rows in job.sources], job.dim, job.dtype)
        scratch = files.enter_context(lake.scratch(STAGE))
        write_target(job.target, job.layout, sources, scratch / file)
        entry = lake.publish_if_new(scratch / file, f"reordered/{job.clip}/{kind}/{file}")
    part = ShardPart(name=job.part, identity=job.made_of, files=(entry,))
    manifests.publish_part(lake, STAGE, part)
    return part


def _make(jobs: Iterable[ReorderJob], lake: Lake, runner: JobRunner, progress: Progress) -> list[ShardPart]:
    """The part of every file; those that are not in the lake yet are made and published one by one."""
    parts: list[ShardPart] = []
    done_parts = manifests.ShardParts(lake, STAGE)
    sizes: deque[tuple[int, int]] = deque()

    def missing() -> Iterator[ReorderJob]:
        for job in jobs:
            if part := done_parts.find(job.part, job.made_of):
                parts.append(part)
                progress.advance()
            else:
                sizes.append((len(job.target.rows), job.target.num_zero_rows))
                yield job

    for part in runner.map(make_file, missing()):
        parts.append(part)
        progress.advance()
        # In the stage's own thread: the log of a Prefect run takes lines from no other.
        num_rows, num_zero_rows = sizes.popleft()
        log_made(Path(part.files[0].path).name, num_rows, num_zero_rows)
    return parts


def log_made(file: str, num_rows: int, num_zero_rows: int) -> None:
    log.info("reorder %s: %d rows, %d of them zero", file, num_rows, num_zero_rows)
