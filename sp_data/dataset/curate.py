"""Curate: which pictures are kept, in which split, and why the others are not.

curated/<identity>.parquet            one row a kept picture: title, split, caption, path of its normal form, ...
curated/<identity>.dropped.parquet    one row a dropped one: title, reason, detail
normalised/ab/abcdef….png             only where the original was not in normal form already
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.dataset.duplicates import relatives
from sp_data.dataset.pictures import Refused, read_picture
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.parquet import read_table
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Curate
from sp_data.stage import VERSION_OF, StageResult, library_versions
from sp_data.wiki.catalogue import OK, CatalogueRow, catalogue_rows, read_catalogue

log = logging.getLogger(__name__)

STAGE = "curate"
VERSION = VERSION_OF[STAGE]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the curated table."""

    title: str
    sha1: str
    split: str
    caption: str
    variants: str
    """Other captions for training, as a JSON list."""
    path: str
    """Of the normal form in the lake: the original itself, or its normalised copy."""
    num_bytes: int
    width: int
    height: int
    url: str
    page: str | None
    revision: int | None
    licence: str | None
    uploader: str | None
    uploaded_at: str
    phash: bytes
    thumb: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row of the dropped table."""

    title: str
    sha1: str
    reason: str
    """Of few words: what `counts` counts by."""
    detail: str
    original: str
    """Path of the original in the lake."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that could be read, before it is compared with the others."""

    row: CatalogueRow
    path: str
    num_bytes: int
    width: int
    height: int
    phash: bytes
    thumb: bytes


def curate(scraped: Manifest, settings: Curate, lake: Lake, *, progress: Progress = SILENT) -> StageResult:
    """Sort the catalogue's pictures into kept and dropped, and publish both tables."""
    with lake.writer():
        inputs = {"scrape": scraped.digest}
        identity = manifests.identity_of(STAGE, VERSION, settings.what(), inputs)
        done = manifests.is_done(lake, STAGE, identity)
        if done and not copies_missing(lake, done):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        rows = [row for row in catalogue_rows(read_catalogue(lake, scraped)) if row.status == OK]
        progress.begin(STAGE, len(rows), "pictures")
        kept, dropped = sort_out(rows, settings, lake, progress)
        stem = f"curated/{identity[:16]}"
        files = [
            lake.write_bytes(f"{stem}.parquet", _parquet(kept, KEPT_SCHEMA)),
            lake.write_bytes(f"{stem}.dropped.parquet", _parquet(dropped, DROPPED_SCHEMA)),
        ]
        reasons = dict(sorted(Counter(drop.reason for drop in dropped).items()))
        splits = Counter(keep.split for keep in kept)
        made = Manifest.make(
            stage=STAGE,
            version=VERSION,
            recipe=settings.what(),
            inputs=inputs,
            counts=Counts(in_=len(rows), out=len(kept), dropped=reasons),
            files=files,
            details={
                "splits": {split: splits[split] for split in SPLITS},
                "num_pictures_bytes": sum(keep.num_bytes for keep in kept if keep.path.startswith("normalised/")),
            },
            versions=library_versions("pillow", "imagehash", "pyarrow"),
            previous=manifests.latest(lake, STAGE),
        )
        manifests.publish(lake, made)
        log.info("curate: kept %d of %d pictures; dropped %s", len(kept), len(rows), reasons or "none")
        return StageResult(made, "done")


def sort_out(
    rows: list[CatalogueRow], settings: Curate, lake: Lake, progress: Progress
) -> tuple[list[Kept], list[Dropped]]:
    """Every row ends in exactly one of the two lists; both are sorted by title."""
    dropped: list[Dropped] = []
    # The oldest upload is the one that stays: later copies come and go, and the dataset should not follow them.
    by_age = sorted(rows, key=lambda row: (row.uploaded_at, row.title))
    # Who opted a picture out meant the picture, under whatever other name its bytes were uploaded.
    opted_out = {row.sha1: row.title for row in by_age if _opt_out(row, settings)}
    first_of: dict[str, CatalogueRow] = {}
    wanted: list[CatalogueRow] = []
    for row in by_age:
        if said := _opt_out(row, settings):
            dropped.append(_drop(row, "opted-out", f"its page says {said}"))
        elif row.sha1 in opted_out:
            dropped.append(_drop(row, "opted-out", f"same bytes as {opted_out[row.sha1]}"))
        elif not row.caption.strip():
            dropped.append(_drop(row, "no-caption", "neither its page nor its name says anything"))
        elif (first := first_of.setdefault(row.sha1, row)) is not row:
            dropped.append(_drop(row, "duplicate", f"same bytes as {first.title}"))
        else:
            wanted.append(row)
    progress.advance(len(rows) - len(wanted))
    candidates: list[Candidate] = []
    with ThreadPoolExecutor(settings.threads or os.cpu_count()) as pool:
        # Pillow lets go of the interpreter while it decodes, scales and compresses, so threads use every core.
        for row, read in zip(wanted, pool.map(lambda row: _read(row, settings, lake), wanted), strict=True):
            progress.advance()
            if isinstance(read, Refused):
                dropped.append(_drop(row, read.reason, read.detail))
            else:
                candidates.append(read)
    kept, near = _place(candidates, settings)
    return sorted(kept, key=lambda keep: keep.title), sorted(dropped + near, key=lambda drop: drop.title)


def _opt_out(row: CatalogueRow, settings: Curate) -> str:
    """The template or category by which a file's page opts out, empty if none does."""
    said = {_plain(name) for name in row.templates} & {_plain(name) for name in settings.opt_out_templates}
    said |= {_plain(name) for name in row.categories} & {_plain(name) for name in settings.opt_out_categories}
    return ", ".join(sorted(said))


def _plain(name: str) -> str:
    """'Opt-out', 'opt out' and 'Opt_out' are one name to the person who wrote it."""
    return name.replace("_", " ").replace("-", " ").strip().lower()


def _read(row: CatalogueRow, settings: Curate, lake: Lake) -> Candidate | Refused:
    if row.original is None:
        raise ValueError(f"{row.title} is 'ok' in the catalogue but names no original")
    with lake.local(row.original) as path:
        try:
            picture = read_picture(path, settings)
        except Refused as refused:
            return refused
    width, height = picture.image.size
    where, size = row.original, row.bytes
    if not picture.as_it_was:
        where = f"normalised/{VERSION}/{row.sha1[:2]}/{row.sha1}.png"
        encoded = BytesIO()
        picture.image.save(encoded, "PNG", compress_level=1)
        size = len(encoded.getvalue())
        if lake.size(where) != size:
            lake.write_bytes(where, encoded.getvalue())
    return Candidate(row, where, size, width, height, picture.phash, picture.thumb)


def _place(candidates: list[Candidate], settings: Curate) -> tuple[list[Kept], list[Dropped]]:
    """Splits, and near-duplicates dropped or kept in their oldest relative's split. `candidates` are oldest first."""
    kept: list[Kept] = []
    dropped: list[Dropped] = []
    split_of: dict[int, str] = {}
    found = relatives(
        [one.phash for one in candidates], [one.thumb for one in candidates], settings.near_duplicate_bits
    )
    for position, (one, alike) in enumerate(zip(candidates, found, strict=True)):
        elders = [elder for elder in alike if elder in split_of]
        if elders and settings.near_duplicates == "drop":
            dropped.append(_drop(one.row, "near-duplicate", f"of {candidates[elders[0]].row.title}"))
            continue
        splits = {split_of[elder] for elder in elders}
        if len(splits) > 1:
            names = ", ".join(candidates[elder].row.title for elder in elders)
            dropped.append(
                _drop(one.row, "bridges-splits", f"near-duplicate of {names}, which are in {sorted(splits)}")
            )
            continue
        split_of[position] = splits.pop() if splits else split_for(one.row.owner_title or one.row.sha1, settings)
        kept.append(_keep(one, split_of[position]))
    return kept, dropped


def split_for(owner: str, settings: Curate) -> str:
    """The split of everything that belongs to one page: a pure function of its title, so it survives re-scrapes."""
    place = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") / 2**64
    if place < settings.val_share:
        return "val"
    return "test" if place < settings.val_share + settings.test_share else "train"


def _keep(one: Candidate, split: str) -> Kept:
    row = one.row
    return Kept(
        title=row.title,
        sha1=row.sha1,
        split=split,
        caption=row.caption,
        variants=json.dumps(row.variants, ensure_ascii=False),
        path=one.path,
        num_bytes=one.num_bytes,
        width=one.width,
        height=one.height,
        url=row.url,
        page=row.owner_title,
        revision=row.owner_revision,
        licence=row.licence,
        uploader=row.uploader,
        uploaded_at=row.uploaded_at,
        phash=one.phash,
        thumb=one.thumb,
    )


def _drop(row: CatalogueRow, reason: str, detail: str) -> Dropped:
    return Dropped(row.title, row.sha1, reason, detail, row.original or "")


KEPT_SCHEMA = pa.schema(
    [
        ("title", pa.string()),
        ("sha1", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
        ("variants", pa.string()),
        ("path", pa.string()),
        ("num_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("url", pa.string()),
        ("page", pa.string()),
        ("revision", pa.int64()),
        ("licence", pa.string()),
        ("uploader", pa.string()),
        ("uploaded_at", pa.string()),
        ("phash", pa.binary()),
        ("thumb", pa.binary()),
    ]
)
DROPPED_SCHEMA = pa.schema([(name, pa.string()) for name in ("title", "sha1", "reason", "detail", "original")])


def _parquet(rows: Iterable[Kept] | Iterable[Dropped], schema: pa.Schema) -> bytes:
    out = BytesIO()
    listed: list[dict[str, Any]] = [asdict(row) for row in rows]
    pq.write_table(pa.Table.from_pylist(listed, schema=schema), out)
    return out.getvalue()


def read_kept(lake: Lake, curated: Manifest) -> pa.Table:
    """The curated table (`KEPT_SCHEMA`), sorted by title."""
    return _table(lake, curated, dropped=False)


def read_dropped(lake: Lake, curated: Manifest) -> pa.Table:
    """The dropped table (`DROPPED_SCHEMA`), sorted by title."""
    return _table(lake, curated, dropped=True)


def _table(lake: Lake, curated: Manifest, *, dropped: bool) -> pa.Table:
    (path,) = (file.path for file in curated.files if file.path.endswith(".dropped.parquet") is dropped)
    with lake.local(path) as local:
        return read_table(local, lake.full(path))


def copies_missing(lake: Lake, curated: Manifest) -> list[str]:
    """Paths of normal forms that are not in the lake with their size; img2dataset would count them as failed."""
    table = read_kept(lake, curated).select(["path", "num_bytes"]).to_pylist()
    return [row["path"] for row in table if lake.size(row["path"]) != row["num_bytes"]]
