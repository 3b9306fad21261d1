"""A verified dataset, written in the form that another trainer reads.

    dalle2-pytorch   tars, embeddings for its decoder and for its prior, two configurations (export_dalle2.py)
    imagefolder      train/ val/ test/ with pictures and metadata.jsonl, for Hugging Face's `datasets`
    kohya            pictures with a .txt beside each, for kohya's sd-scripts (both: export_folders.py)

One shard at a time (a thread) is in memory. What is written is whole: it is made beside the folder and renamed. Nothing
that has a tombstone leaves the lake; who made a picture and under which licence leaves with it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sp_data.dataset.curate.tables import SPLITS
from sp_data.errors import LakeError, StageError, UsageError
from sp_data.exchange.export.base import Form, Writer, Written
from sp_data.exchange.export.live_shard import open_shard
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

FORMS = ("dalle2-pytorch", "imagefolder", "kohya")
MARK = ".sp-data-export.json"
"""Says that a folder is an export, and of what: only such a folder is ever replaced. Hidden, so that no loader of
pictures takes it for one of its files."""
WORK = ".work"


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One shard to write, as the dataset manifest lists it. Plain values, so that it can travel."""

    url: str
    dataset: str
    layout: KeyLayout
    dim: int
    listed: dict[str, Any]
    dead: frozenset[str]
    writer: Writer
    folder: Path


def write_shard(job: ExportJob) -> Written:
    """Write one shard. Raises CorruptFile."""
    with open_shard(job.listed, job.layout, job.dim, job.dead, Lake(job.url, job.dataset)) as shard:
        work = job.folder / WORK / shard.name
        # A job that was cut short on another machine is done again from the beginning.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if shard.keys:
            job.writer.write(shard, job.folder, work)
        return Written(shard.number, shard.name, shard.split, len(shard.keys), shard.dropped)


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did: samples by split, and why others were left out."""

    to: str
    folder: Path
    num_shards: int
    splits: dict[str, int]
    dropped: dict[str, int]

    @property
    def num_samples(self) -> int:
        return sum(self.splits.values())


def form_of(to: str, verified: Manifest, recipe: Recipe, *, embeddings_in_tars: bool = False) -> Form:
    """The form that `to` names. `embeddings_in_tars` is dalle2-pytorch's other one. Raises UsageError."""
    if to not in FORMS:
        raise UsageError(f"--to {to}: expected one of {', '.join(FORMS)}")
    if embeddings_in_tars and to != "dalle2-pytorch":
        raise UsageError(f"--embeddings-in-tars is for --to dalle2-pytorch; {to} has no embeddings")
    if to == "dalle2-pytorch":
        from sp_data.exchange.export.dalle2 import Dalle2

        return Dalle2(verified, recipe, embeddings_in_tars=embeddings_in_tars)
    from sp_data.exchange.export.folders import ImageFolder, Kohya

    return ImageFolder() if to == "imagefolder" else Kohya(recipe.name)


def export(
    verified: Manifest,
    form: Form,
    lake: Lake,
    target: Path,
    *,
    to: str,
    splits: tuple[str, ...] = SPLITS,
    runner: JobRunner | None = None,
    progress: Progress = SILENT,
) -> ExportResult:
    """Write the live samples of these splits to `target`; an earlier export there is replaced.

    Raises UsageError for a split that there is not, StageError if `target` holds anything else or if there is nothing
    to export.
    """
    if odd := sorted(set(splits) - set(SPLITS)):
        raise UsageError(f"--split {odd[0]}: expected one of {', '.join(SPLITS)}")
    layout = KeyLayout.parse(verified.details["layout"])
    shards = [listed for listed in verified.details["shards"] if listed["split"] in splits]
    tombstones: dict[int, set[str]] = {}
    for key in verified.details["tombstones"]:
        tombstones.setdefault(layout.split(key)[0], set()).add(key)

    with _made_beside(target) as folder:
        jobs = (
            ExportJob(
                url=lake.url,
                dataset=lake.dataset,
                layout=layout,
                dim=int(verified.details["dim"]),
                listed=listed,
                dead=frozenset(tombstones.get(listed["number"], ())),
                writer=form.writer,
                # Where the work is done may be another machine: its working folder is not ours.
                folder=folder.absolute(),
            )
            for listed in shards
        )
        progress.begin("export", sum(listed["num_samples"] for listed in shards), "pictures")
        written: list[Written] = []
        for listed, one in zip(shards, (runner or ThreadRunner()).map(write_shard, jobs), strict=True):
            written.append(one)
            progress.advance(listed["num_samples"])
            log.info("export %s: %d samples, %d left out", one.name, one.num_samples, sum(one.dropped.values()))
        alive = [one for one in written if one.num_samples]
        if not alive:
            raise StageError(
                f"no sample of {lake.dataset!r} is alive in {', '.join(splits)}: there is nothing to export"
            )
        noted = form.finish(alive, folder, folder / WORK, target)
        shutil.rmtree(folder / WORK)
        mark = {"dataset": lake.dataset, "digest": verified.digest, "to": to, "sp-data": version("sp-data")}
        (folder / MARK).write_text(json.dumps({**mark, **noted}, indent=1, ensure_ascii=False) + "\n")
    return ExportResult(
        to=to,
        folder=target,
        num_shards=len(alive),
        splits={split: sum(one.num_samples for one in alive if one.split == split) for split in splits},
        dropped=dict(sum((Counter(one.dropped) for one in written), Counter[str]())),
    )


@contextmanager
def _made_beside(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place if all goes well, and goes if not."""
    _sweep(target)
    ours = (target / MARK).exists()
    if target.exists() and not ours and (not target.is_dir() or any(target.iterdir())):
        raise StageError(f"{target} holds something that is no export of sp-data's; give an empty or a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.with_name(f".{target.name}.export-{os.getpid()}")
        folder.mkdir()
    except PermissionError as error:
        raise LakeError(f"{target} cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield folder
        if ours:
            # Two renames: for a moment there is no export, but never half of one.
            before = target.with_name(f".{target.name}.before-{os.getpid()}")
            target.rename(before)
            folder.rename(target)
            shutil.rmtree(before)
        else:
            if target.exists():
                target.rmdir()
            folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what an export that was killed left beside `target`; one that was taken away for a new one which never
    came is put back."""
    for left in [*target.parent.glob(f".{target.name}.export-*"), *target.parent.glob(f".{target.name}.before-*")]:
        owner = left.name.rpartition("-")[2]
        if owner != str(os.getpid()) and Path(f"/proc/{owner}").exists():
            continue
        if ".before-" in left.name and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)
