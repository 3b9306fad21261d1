"""Curate: which pictures are kept, in which split, and why the others are not.

curated.py has the two tables it makes; readings.py reads pictures, and not twice; duplicates.py compares them.

normalised/3/ab/abcdef….png           only where the original was not in normal form already
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from sp_data.dataset.curate.boilerplate import Boilerplate
from sp_data.dataset.curate.duplicates import relatives
from sp_data.dataset.curate.readings import (
    LIBRARIES,
    PictureReading,
    PictureRefusal,
    ReadingJob,
    known_of,
    known_readings,
    read_all,
)
from sp_data.dataset.curate.tables import (
    COPIES,
    DROPPED_SCHEMA,
    KEPT_SCHEMA,
    SPLITS,
    DroppedRow,
    KeptRow,
    copies_missing,
    parquet_of,
)
from sp_data.lake import Lake
from sp_data.manifest import Counts
from sp_data.recipe import Curate
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import Progress
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions
from sp_data.wiki.catalogue import OK, CatalogueRow, catalogue_rows, read_catalogue

log = logging.getLogger(__name__)

PICTURES_A_JOB = 16


@dataclass(frozen=True, slots=True)
class PictureCandidate:
    """A picture that could be read, before it is compared with the others."""

    row: CatalogueRow
    read: PictureReading


def curate(run: StageRun) -> StageResult:
    """Sort the catalogue's pictures into kept and dropped, and publish both tables."""
    return run.once(lambda: _curate(run), is_whole=lambda curated: not copies_missing(run.lake, curated))


def _curate(run: StageRun) -> StageOutput:
    settings, lake, progress = run.recipe.curate, run.lake, run.progress
    rows = [row for row in catalogue_rows(read_catalogue(lake, run.inputs["scrape"])) if row.status == OK]
    progress.begin(run.stage, len(rows), "pictures")
    known = known_readings(run)
    kept, dropped = sort_out(rows, settings, lake, progress, known, run.runner)
    stem = f"curated/{run.identity[:16]}"
    files = [
        lake.write_bytes(f"{stem}.parquet", parquet_of(kept, KEPT_SCHEMA)),
        lake.write_bytes(f"{stem}.dropped.parquet", parquet_of(dropped, DROPPED_SCHEMA)),
    ]
    reasons = dict(sorted(Counter(drop.reason for drop in dropped).items()))
    splits = Counter(keep.split for keep in kept)
    log.info("curate: kept %d of %d pictures; dropped %s", len(kept), len(rows), reasons or "none")
    return StageOutput(
        counts=Counts(in_=len(rows), out=len(kept), dropped=reasons),
        files=files,
        details={
            "splits": {split: splits[split] for split in SPLITS},
            "num_pictures_bytes": sum(keep.num_bytes for keep in kept if keep.path.startswith(COPIES)),
        },
        versions=library_versions(*LIBRARIES),
    )


def sort_out(
    rows: list[CatalogueRow],
    settings: Curate,
    lake: Lake,
    progress: Progress,
    known: Mapping[str, PictureReading | PictureRefusal],
    runner: JobRunner | None = None,
) -> tuple[list[KeptRow], list[DroppedRow]]:
    """Every row ends in exactly one of the two lists; both are sorted by title. What is `known` is not read again."""
    dropped: list[DroppedRow] = []
    # The oldest upload is the one that stays: later copies come and go, and the dataset should not follow them.
    by_age = sorted(rows, key=lambda row: (row.uploaded_at, row.title))
    # Who opted a picture out meant the picture, under whatever other name its bytes were uploaded.
    opt_outs = OptOuts.of(settings)
    opted_out = {row.sha1: row.title for row in by_age if opt_outs.said_by(row)}
    boilerplate = Boilerplate.of(settings.boilerplate_words, settings.boilerplate_captions)
    first_of: dict[str, CatalogueRow] = {}
    wanted: list[CatalogueRow] = []
    for row in by_age:
        if said := opt_outs.said_by(row):
            dropped.append(_drop(row, "opted-out", f"its page says {said}"))
        elif row.sha1 in opted_out:
            dropped.append(_drop(row, "opted-out", f"same bytes as {opted_out[row.sha1]}"))
        elif not row.caption.strip():
            dropped.append(_drop(row, "no-caption", "neither its page nor its name says anything"))
        elif boilerplate.covers(row.caption):
            dropped.append(_drop(row, "boilerplate-caption", f"all that is said of it is {row.caption!r}"))
        elif (first := first_of.setdefault(row.sha1, row)) is not row:
            dropped.append(_drop(row, "duplicate", f"same bytes as {first.title}"))
        else:
            wanted.append(row)
    progress.advance(len(rows) - len(wanted))
    candidates: list[PictureCandidate] = []
    for row, read in _readings(wanted, settings, lake, known, runner or ThreadRunner(settings.threads)):
        progress.advance()
        if isinstance(read, PictureRefusal):
            dropped.append(_drop(row, read.reason, read.detail))
        else:
            candidates.append(PictureCandidate(row, read))
    kept, near = _place(candidates, settings)
    return sorted(kept, key=lambda keep: keep.title), sorted(dropped + near, key=lambda drop: drop.title)


def _readings(
    wanted: list[CatalogueRow],
    settings: Curate,
    lake: Lake,
    known: Mapping[str, PictureReading | PictureRefusal],
    runner: JobRunner,
) -> Iterator[tuple[CatalogueRow, PictureReading | PictureRefusal]]:
    """Each row with what is known or read of its picture, in their order."""
    there = [known_of(row, known) for row in wanted]
    unread = [row for row, before in zip(wanted, there, strict=True) if before is None]
    jobs = (
        ReadingJob(lake.url, lake.dataset, settings, tuple(unread[start : start + PICTURES_A_JOB]))
        for start in range(0, len(unread), PICTURES_A_JOB)
    )
    read = (reading for readings in runner.map(read_all, jobs) for reading in readings)
    for row, before in zip(wanted, there, strict=True):
        yield row, next(read) if before is None else before


@dataclass(frozen=True, slots=True)
class OptOuts:
    """Templates and categories by which a file's page opts out."""

    templates: frozenset[str]
    categories: frozenset[str]

    @classmethod
    def of(cls, settings: Curate) -> OptOuts:
        return cls(
            frozenset(map(_plain, settings.opt_out_templates)), frozenset(map(_plain, settings.opt_out_categories))
        )

    def said_by(self, row: CatalogueRow) -> str:
        """Those on a file's page, empty if there are none."""
        said = {_plain(name) for name in row.templates} & self.templates
        said |= {_plain(name) for name in row.categories} & self.categories
        return ", ".join(sorted(said))


def _plain(name: str) -> str:
    """'Opt-out', 'opt out' and 'Opt_out' are one name to the person who wrote it."""
    return name.replace("_", " ").replace("-", " ").strip().lower()


def _place(candidates: list[PictureCandidate], settings: Curate) -> tuple[list[KeptRow], list[DroppedRow]]:
    """Splits, and near-duplicates dropped or kept in their oldest relative's split. `candidates` are oldest first."""
    kept: list[KeptRow] = []
    dropped: list[DroppedRow] = []
    split_of: dict[int, str] = {}
    first_of: dict[bytes, str] = {}
    found = relatives(
        [one.read.phash for one in candidates], [one.read.thumb for one in candidates], settings.near_duplicate_bits
    )
    for position, (one, alike) in enumerate(zip(candidates, found, strict=True)):
        if first := first_of.get(one.read.pixels):
            dropped.append(_drop(one.row, "duplicate", f"same pixels as {first}", one.read))
            continue
        elders = [elder for elder in alike if elder in split_of]
        if elders and settings.near_duplicates == "drop":
            dropped.append(_drop(one.row, "near-duplicate", f"of {candidates[elders[0]].row.title}", one.read))
            continue
        splits = {split_of[elder] for elder in elders}
        if len(splits) > 1:
            names = ", ".join(candidates[elder].row.title for elder in elders)
            detail = f"near-duplicate of {names}, which are in {sorted(splits)}"
            dropped.append(_drop(one.row, "bridges-splits", detail, one.read))
            continue
        split_of[position] = splits.pop() if splits else split_for(one.row.owner_title or one.row.sha1, settings)
        first_of[one.read.pixels] = one.row.title
        kept.append(_keep(one, split_of[position]))
    return kept, dropped


def split_for(owner: str, settings: Curate) -> str:
    """The split of everything that belongs to one page: a pure function of its title, so it survives re-scrapes."""
    place = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") / 2**64
    if place < settings.val_share:
        return "val"
    return "test" if place < settings.val_share + settings.test_share else "train"


def _keep(one: PictureCandidate, split: str) -> KeptRow:
    row = one.row
    return KeptRow(
        title=row.title,
        sha1=row.sha1,
        split=split,
        caption=row.caption,
        variants=json.dumps(row.variants, ensure_ascii=False),
        path=one.read.path,
        num_bytes=one.read.num_bytes,
        width=one.read.width,
        height=one.read.height,
        url=row.url,
        page=row.owner_title,
        revision=row.owner_revision,
        licence=row.licence,
        uploader=row.uploader,
        uploaded_at=row.uploaded_at,
        phash=one.read.phash,
        thumb=one.read.thumb,
        pixels=one.read.pixels,
    )


def _drop(row: CatalogueRow, reason: str, detail: str, read: PictureReading | None = None) -> DroppedRow:
    """`read` is what was read of it, where it was dropped after that."""
    looks = {} if read is None else {field.name: getattr(read, field.name) for field in fields(read)}
    return DroppedRow(row.title, row.sha1, reason, detail, row.original or "", **looks)
