"""Read each picture once: after a re-scrape only new ones are decoded, the rest is taken from the earlier tables.

A reading is a function of the bytes, the limits in the recipe, this stage's version and the libraries that decode. If
none of these changed, and the picture's normal form is still in the lake, the picture is not decoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from sp_data.dataset.curate.decoding import Refused
from sp_data.dataset.curate.pictures import REASONS, read_picture
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
    """Path of the normal form: the original, or its normalised copy."""
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
    """sha1 -> its reading in the newest snapshot, where reading the picture again would give the same."""
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
    """Pictures to read. It holds plain values, so that it can be sent to another process."""

    url: str
    dataset: str
    settings: Curate
    rows: tuple[CatalogueRow, ...]


def read_pictures(job: ReadingJob) -> list[PictureReading | PictureRefusal]:
    """Read each picture, and publish a normalised copy of those that need one.

    Raises FileNotFoundError if an original is gone.
    """
    lake = Lake(job.url, job.dataset)
    return [_read(row, job.settings, lake) for row in job.rows]


def known_reading(
    row: CatalogueRow, known: Mapping[str, PictureReading | PictureRefusal]
) -> PictureReading | PictureRefusal | None:
    """The known reading of a picture; None if it has to be read."""
    reading = known.get(row.sha1)
    # The same bytes under another extension are another file.
    fits = isinstance(reading, PictureRefusal) or (
        reading is not None and reading.path in (row.original, _copy_path(row))
    )
    return reading if fits else None


def _read(row: CatalogueRow, settings: Curate, lake: Lake) -> PictureReading | PictureRefusal:
    if row.original is None:
        raise ValueError(f"{row.title} is 'ok' in the catalogue but names no original")
    with lake.local(row.original) as file:
        try:
            picture = read_picture(file, settings)
        except Refused as refused:
            return PictureRefusal(refused.reason, refused.detail)
    path, size = row.original, row.bytes
    if not picture.file_is_normal:
        path = _copy_path(row)
        encoded = BytesIO()
        picture.image.save(encoded, "PNG", compress_level=1)
        size = len(encoded.getvalue())
        if lake.size(path) != size:
            lake.write_bytes(path, encoded.getvalue())
    width, height = picture.image.size
    return PictureReading(path, size, width, height, picture.phash, picture.thumb, picture.pixels)


def _copy_path(row: CatalogueRow) -> str:
    return f"{COPIES}/{row.sha1[:2]}/{row.sha1}.png"
