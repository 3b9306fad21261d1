"""Write a verified dataset in the form that another trainer reads.

    dalle2-pytorch   tars, embeddings for its decoder and for its prior, two configurations (dalle2.py)
    imagefolder      train/ val/ test/ with pictures and metadata.jsonl, for Hugging Face's `datasets`
    kohya            pictures with a .txt beside each, for kohya's sd-scripts (both: folders.py)

Each thread has one shard in memory. An export is made in a folder beside the target and then renamed, so it is whole or
not there; in a target that is a mount it is made inside, and is whole once its mark is there. A sample that has a
tombstone is not exported; every picture's uploader and licence are.
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

from sp_data.dataset.curate.splits import SPLITS
from sp_data.errors import StageError, UsageError
from sp_data.exchange.export.base import Form, Writer, Written
from sp_data.exchange.export.live_shard import open_shard
from sp_data.keys import KeyLayout
from sp_data.lake import Lake, disk_errors
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

FORMS = ("dalle2-pytorch", "imagefolder", "kohya")
MARK = ".sp-data-export.json"
"""The file that marks a folder as an export and names its dataset: only a marked folder is ever replaced. It is hidden,
so that no picture loader reads it."""
WORK = ".work"


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One shard to write. Plain values, so that it can be sent to another machine."""

    url: str
    dataset: str
    layout: KeyLayout
    dim: int
    shard: dict[str, Any]
    """The shard's entry in the dataset manifest."""
    tombstones: frozenset[str]
    writer: Writer
    folder: Path


def write_shard(job: ExportJob) -> Written:
    """Write one shard. Raises CorruptFile."""
    with open_shard(job.shard, job.layout, job.dim, job.tombstones, Lake(job.url, job.dataset)) as shard:
        work = job.folder / WORK / shard.name
        # A job that was interrupted on another machine starts again from the beginning.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if shard.keys:
            job.writer.write(shard, job.folder, work)
        return Written(shard.number, shard.name, shard.split, len(shard.keys), shard.dropped)


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote: samples by split, and how many were left out for which reason."""

    to: str
    folder: Path
    num_shards: int
    splits: dict[str, int]
    dropped: dict[str, int]

    @property
    def num_samples(self) -> int:
        return sum(self.splits.values())


def form_of(to: str, verified: Manifest, recipe: Recipe, *, embeddings_in_tars: bool = False) -> Form:
    """The form called `to`. `embeddings_in_tars` is a variant of dalle2-pytorch's. Raises UsageError."""
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

    Raises UsageError for an unknown split, StageError if `target` holds anything else or if there is nothing
    to export.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise UsageError(f"--split {unknown[0]}: expected one of {', '.join(SPLITS)}")
    layout = KeyLayout.parse(verified.details["layout"])
    shards = [shard for shard in verified.details["shards"] if shard["split"] in splits]
    tombstones: dict[int, set[str]] = {}
    for key in verified.details["tombstones"]:
        tombstones.setdefault(layout.split(key)[0], set()).add(key)

    with _replacing(target) as folder:
        jobs = (
            ExportJob(
                url=lake.url,
                dataset=lake.dataset,
                layout=layout,
                dim=int(verified.details["dim"]),
                shard=shard,
                tombstones=frozenset(tombstones.get(shard["number"], ())),
                writer=form.writer,
                # The job may run on another machine, with another working directory.
                folder=folder.absolute(),
            )
            for shard in shards
        )
        progress.begin("export", sum(shard["num_samples"] for shard in shards), "pictures")
        written: list[Written] = []
        for shard, exported in zip(shards, (runner or ThreadRunner()).map(write_shard, jobs), strict=True):
            written.append(exported)
            progress.advance(shard["num_samples"])
            log.info(
                "export %s: %d samples, %d left out",
                exported.name,
                exported.num_samples,
                sum(exported.dropped.values()),
            )
        alive = [exported for exported in written if exported.num_samples]
        if not alive:
            raise StageError(
                f"no sample of {lake.dataset!r} is alive in {', '.join(splits)}: there is nothing to export"
            )
        form_fields = form.finish(alive, folder, folder / WORK, target)
        shutil.rmtree(folder / WORK)
        mark = {"dataset": lake.dataset, "digest": verified.digest, "to": to, "sp-data": version("sp-data")}
        (folder / MARK).write_text(json.dumps({**mark, **form_fields}, indent=1, ensure_ascii=False) + "\n")
    return ExportResult(
        to=to,
        folder=target,
        num_shards=len(alive),
        splits={split: sum(exported.num_samples for exported in alive if exported.split == split) for split in splits},
        dropped=dict(sum((Counter(exported.dropped) for exported in written), Counter[str]())),
    )


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder that replaces `target` when the block ends, or is removed if the block raises: beside it, so that it
    takes its place in one step; inside it, where it is a mount, or where the folder above cannot be written."""
    _sweep(target)
    is_export = (target / MARK).exists()
    if target.exists() and not is_export and (not target.is_dir() or any(target.iterdir())):
        raise StageError(f"{target} holds something that is no export of sp-data; give an empty or a new folder")
    name = f".{target.name}.export-{os.getpid()}"
    inside = target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK))
    folder = target / name if inside else target.with_name(name)
    with disk_errors(str(target), "choose another folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    try:
        yield folder
        if inside:
            _move_up(folder, target)
        elif is_export:
            # Two renames: for a moment there is no export, but never a part of one.
            old = target.with_name(f".{target.name}.before-{os.getpid()}")
            target.rename(old)
            folder.rename(target)
            shutil.rmtree(old)
        else:
            if target.exists():
                target.rmdir()
            folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_up(folder: Path, target: Path) -> None:
    """Put what is in a folder in the place of everything else in `target`; with the mark, last, it is whole."""
    (target / MARK).unlink(missing_ok=True)
    for entry in target.iterdir():
        if entry == folder:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == MARK):
        entry.rename(target / entry.name)


def _sweep(target: Path) -> None:
    """Remove what a killed export left beside or in `target`; if it had moved the old one away, put that back."""
    beside = (*target.parent.glob(f".{target.name}.export-*"), *target.parent.glob(f".{target.name}.before-*"))
    for leftover in (*beside, *target.glob(f".{target.name}.export-*")):
        owner = leftover.name.rpartition("-")[2]
        if owner != str(os.getpid()) and Path(f"/proc/{owner}").exists():
            continue
        if ".before-" in leftover.name and not target.exists():
            leftover.rename(target)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
