"""What is read of each picture, once: a re-scrape reads what is new, and takes the rest from the tables it left.

A reading is a function of the bytes, the limits in the recipe, this stage's version and the libraries that decode. If
all of these are as they were, and the file that was handed on is still there, nothing is decoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from sp_data.dataset.curate.pictures import REASONS, Refused, read_picture
from sp_data.dataset.curate.tables import COPIES, picture_sizes, read_dropped, read_kept
from sp_data.lake import Lake
from sp_data.manifest import missing_files
from sp_data.recipe import Curate
from sp_data.stage import StageRun, library_versions
from sp_data.wiki.catalogue import CatalogueRow

LIBRARIES = ("pillow", "imagehash", "pyarrow")
LIMITS = ("min_side_px", "max_pixels", "max_aspect")
"""Fields of the recipe that a reading depends on."""
COLUMNS = ["sha1", "path", "num_bytes", "width", "height", "phash", "thumb", "pixels"]


@dataclass(frozen=True, slots=True)
class PictureReading:
    """A picture that could be read."""

    path: str
    """Of the normal form: the original, or its normalised copy."""
    num_bytes: int
    width: int
    height: int
    phash: bytes
    thumb: bytes
    pixels: bytes


@dataclass(frozen=True, slots=True)
class PictureRefusal:
    reason: str
    detail: str


def known_readings(run: StageRun) -> dict[str, PictureReading | PictureRefusal]:
    """sha1 -> what the newest snapshot knows of it, as far as that would be found again."""
    newest, lake = run.newest(), run.lake
    if newest is None or newest.version != run.version or newest.versions != library_versions(*LIBRARIES):
        return {}
    if any(newest.recipe.get(name) != run.identity_fields[name] for name in LIMITS):
        return {}
    if missing_files(lake, newest.files):
        return {}
    sizes = picture_sizes(lake)
    dropped = read_dropped(lake, newest)
    known: dict[str, PictureReading | PictureRefusal] = {}
    for row in read_kept(lake, newest, COLUMNS).to_pylist() + dropped.select(COLUMNS).to_pylist():
        sha1 = row.pop("sha1")
        if row["pixels"] is not None and sizes.get(row["path"]) == row["num_bytes"]:
            known[sha1] = PictureReading(**row)
    for row in dropped.select(["sha1", "reason", "detail", "original"]).to_pylist():
        if row["reason"] in REASONS and row["original"] in sizes:
            known[row["sha1"]] = PictureRefusal(row["reason"], row["detail"])
    return known


@dataclass(frozen=True, slots=True)
class ReadingJob:
    """Pictures to read. Plain values, so that it can travel."""

    url: str
    dataset: str
    settings: Curate
    rows: tuple[CatalogueRow, ...]


def read_all(job: ReadingJob) -> list[PictureReading | PictureRefusal]:
    """What is read of each picture; publishes a normalised copy where one needs it.

    Raises FileNotFoundError if an original is gone.
    """
    lake = Lake(job.url, job.dataset)
    return [_read(row, job.settings, lake) for row in job.rows]


def known_of(
    row: CatalogueRow, known: Mapping[str, PictureReading | PictureRefusal]
) -> PictureReading | PictureRefusal | None:
    """What is known of a picture, None if it has to be read."""
    before = known.get(row.sha1)
    # The same bytes under a name of another type are another file.
    fits = isinstance(before, PictureRefusal) or (before is not None and before.path in (row.original, _copy_path(row)))
    return before if fits else None


def _read(row: CatalogueRow, settings: Curate, lake: Lake) -> PictureReading | PictureRefusal:
    if row.original is None:
        raise ValueError(f"{row.title} is 'ok' in the catalogue but names no original")
    with lake.local(row.original) as path:
        try:
            picture = read_picture(path, settings)
        except Refused as refused:
            return PictureRefusal(refused.reason, refused.detail)
    where, size = row.original, row.bytes
    if not picture.as_it_was:
        where = _copy_path(row)
        encoded = BytesIO()
        picture.image.save(encoded, "PNG", compress_level=1)
        size = len(encoded.getvalue())
        if lake.size(where) != size:
            lake.write_bytes(where, encoded.getvalue())
    width, height = picture.image.size
    return PictureReading(where, size, width, height, picture.phash, picture.thumb, picture.pixels)


def _copy_path(row: CatalogueRow) -> str:
    return f"{COPIES}/{row.sha1[:2]}/{row.sha1}.png"
