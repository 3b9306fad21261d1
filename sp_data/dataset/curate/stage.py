"""Curate: which pictures are kept, in which split, and why the others are not.

tables.py has the two tables that it writes; readings.py reads each picture, once; duplicates.py compares them.

    normalised/3/ab/abcdef….png      only where the original is not in normal form
"""

from __future__ import annotations

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
    known_reading,
    known_readings,
    read_pictures,
)
from sp_data.dataset.curate.splits import SPLITS, split_for
from sp_data.dataset.curate.tables import (
    COPIES,
    DROPPED_SCHEMA,
    KEPT_SCHEMA,
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
    reading: PictureReading


def curate(run: StageRun) -> StageResult:
    """Decide which of the catalogue's pictures are kept and which are dropped, and publish both tables."""
    return run.once(lambda: _curate(run), is_whole=lambda manifest: not copies_missing(run.lake, manifest))


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
    reasons = dict(sorted(Counter(row.reason for row in dropped).items()))
    splits = Counter(row.split for row in kept)
    return StageOutput(
        counts=Counts(in_=len(rows), out=len(kept), dropped=reasons),
        files=files,
        summary=f"kept {len(kept)} of {len(rows)} pictures; dropped {reasons or 'none'}",
        details={
            "splits": {split: splits[split] for split in SPLITS},
            "num_pictures_bytes": sum(row.num_bytes for row in kept if row.path.startswith(COPIES)),
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
    """Every row ends in exactly one of the two lists, both sorted by title. `known` pictures are not read again."""
    dropped: list[DroppedRow] = []
    # The oldest upload stays: later copies come and go, and the dataset should not change with them.
    by_age = sorted(rows, key=lambda row: (row.uploaded_at, row.title))
    # An opt-out covers the same bytes under every other name too.
    opt_outs = OptOuts.of(settings)
    opted_out = {row.sha1: row.title for row in by_age if opt_outs.on_page_of(row)}
    boilerplate = Boilerplate.of(settings.boilerplate_words, settings.boilerplate_captions)
    first_of: dict[str, CatalogueRow] = {}
    wanted: list[CatalogueRow] = []
    for row in by_age:
        if names := opt_outs.on_page_of(row):
            dropped.append(_dropped_row(row, "opted-out", f"its page says {names}"))
        elif row.sha1 in opted_out:
            dropped.append(_dropped_row(row, "opted-out", f"same bytes as {opted_out[row.sha1]}"))
        elif not row.caption.strip():
            dropped.append(_dropped_row(row, "no-caption", "neither its page nor its name says anything"))
        elif boilerplate.covers(row.caption):
            dropped.append(_dropped_row(row, "boilerplate-caption", f"all that is said of it is {row.caption!r}"))
        elif (first := first_of.setdefault(row.sha1, row)) is not row:
            dropped.append(_dropped_row(row, "duplicate", f"same bytes as {first.title}"))
        else:
            wanted.append(row)
    progress.advance(len(rows) - len(wanted))
    candidates: list[PictureCandidate] = []
    for row, reading in _readings(wanted, settings, lake, known, runner or ThreadRunner(settings.threads)):
        progress.advance()
        if isinstance(reading, PictureRefusal):
            dropped.append(_dropped_row(row, reading.reason, reading.detail))
        else:
            candidates.append(PictureCandidate(row, reading))
    kept, alike = _assign_splits(candidates, settings)
    return sorted(kept, key=lambda row: row.title), sorted(dropped + alike, key=lambda row: row.title)


def _readings(
    rows: list[CatalogueRow],
    settings: Curate,
    lake: Lake,
    known: Mapping[str, PictureReading | PictureRefusal],
    runner: JobRunner,
) -> Iterator[tuple[CatalogueRow, PictureReading | PictureRefusal]]:
    """Each row with the reading of its picture, known or new, in the order of the rows."""
    earlier = [known_reading(row, known) for row in rows]
    unread = [row for row, reading in zip(rows, earlier, strict=True) if reading is None]
    jobs = (
        ReadingJob(lake.url, lake.dataset, settings, tuple(unread[start : start + PICTURES_A_JOB]))
        for start in range(0, len(unread), PICTURES_A_JOB)
    )
    new = (reading for readings in runner.map(read_pictures, jobs) for reading in readings)
    for row, reading in zip(rows, earlier, strict=True):
        yield row, next(new) if reading is None else reading


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

    def on_page_of(self, row: CatalogueRow) -> str:
        """The opt-outs on a file's page, separated by commas; empty if there are none."""
        names = {_plain(name) for name in row.templates} & self.templates
        names |= {_plain(name) for name in row.categories} & self.categories
        return ", ".join(sorted(names))


def _plain(name: str) -> str:
    """'Opt-out', 'opt out' and 'Opt_out' are the same name to the people who write it."""
    return name.replace("_", " ").replace("-", " ").strip().lower()


def _assign_splits(candidates: list[PictureCandidate], settings: Curate) -> tuple[list[KeptRow], list[DroppedRow]]:
    """Give every picture a split; a near-duplicate is dropped, or gets its oldest relative's. `candidates` are oldest
    first."""
    kept: list[KeptRow] = []
    dropped: list[DroppedRow] = []
    split_of: dict[int, str] = {}
    first_of: dict[bytes, str] = {}
    all_relatives = relatives(
        [candidate.reading.phash for candidate in candidates],
        [candidate.reading.thumb for candidate in candidates],
        settings.near_duplicate_bits,
    )
    for position, (candidate, earlier) in enumerate(zip(candidates, all_relatives, strict=True)):
        if first := first_of.get(candidate.reading.pixels):
            dropped.append(_dropped_row(candidate.row, "duplicate", f"same pixels as {first}", candidate.reading))
            continue
        elders = [elder for elder in earlier if elder in split_of]
        if elders and settings.near_duplicates == "drop":
            dropped.append(
                _dropped_row(
                    candidate.row, "near-duplicate", f"of {candidates[elders[0]].row.title}", candidate.reading
                )
            )
            continue
        splits = {split_of[elder] for elder in elders}
        if len(splits) > 1:
            names = ", ".join(candidates[elder].row.title for elder in elders)
            detail = f"near-duplicate of {names}, which are in {sorted(splits)}"
            dropped.append(_dropped_row(candidate.row, "bridges-splits", detail, candidate.reading))
            continue
        split_of[position] = (
            splits.pop() if splits else split_for(candidate.row.owner_title or candidate.row.sha1, settings)
        )
        first_of[candidate.reading.pixels] = candidate.row.title
        kept.append(_kept_row(candidate, split_of[position]))
    return kept, dropped


def _kept_row(candidate: PictureCandidate, split: str) -> KeptRow:
    row = candidate.row
    return KeptRow(
        title=row.title,
        sha1=row.sha1,
        split=split,
        caption=row.caption,
        variants=json.dumps(row.variants, ensure_ascii=False),
        path=candidate.reading.path,
        num_bytes=candidate.reading.num_bytes,
        width=candidate.reading.width,
        height=candidate.reading.height,
        url=row.url,
        page=row.owner_title,
        revision=row.owner_revision,
        licence=row.licence,
        uploader=row.uploader,
        uploaded_at=row.uploaded_at,
        phash=candidate.reading.phash,
        thumb=candidate.reading.thumb,
        pixels=candidate.reading.pixels,
    )


def _dropped_row(row: CatalogueRow, reason: str, detail: str, reading: PictureReading | None = None) -> DroppedRow:
    """`reading`: of a picture that is dropped after it was read."""
    columns = {} if reading is None else {field.name: getattr(reading, field.name) for field in fields(reading)}
    return DroppedRow(row.title, row.sha1, reason, detail, row.original or "", **columns)
