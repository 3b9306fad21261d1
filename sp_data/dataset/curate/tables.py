"""The two tables of curate: what was kept, and what was dropped and why. No picture is opened here.

curated/<identity>.parquet            one row per kept picture: title, split, caption, path of its normal form, ...
curated/<identity>.dropped.parquet    one row per dropped one: title, reason, detail
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.parquet import DENSE, read_table, table_blocks

COPIES_VERSION = 3
"""Version of the normalised copies: raised, with the stage's own version, when a copy comes out differently."""
COPIES = f"normalised/{COPIES_VERSION}"
"""Folder of the normalised copies."""


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row of the curated table."""

    title: str
    sha1: str
    split: str
    caption: str
    variants: str
    """Other captions for training, as a JSON list."""
    path: str
    """Path of the normal form in the lake: the original itself, or its normalised copy."""
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
    pixels: bytes


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row of the dropped table."""

    title: str
    sha1: str
    reason: str
    """One of a few fixed words: the manifest counts by them."""
    detail: str
    original: str
    """Path of the original in the lake."""
    path: str | None = None
    """From here on: the reading of a picture that was dropped after it was read, so that it need not be read again."""
    num_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    phash: bytes | None = None
    thumb: bytes | None = None
    pixels: bytes | None = None


_FILE_COLUMNS = [
    ("path", pa.string()),
    ("num_bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
]
_HASH_COLUMNS = [("phash", pa.binary()), ("thumb", pa.binary()), ("pixels", pa.binary())]
KEPT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("title", "sha1", "split", "caption", "variants")),
        *_FILE_COLUMNS,
        ("url", pa.string()),
        ("page", pa.string()),
        ("revision", pa.int64()),
        *((name, pa.string()) for name in ("licence", "uploader", "uploaded_at")),
        *_HASH_COLUMNS,
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("title", "sha1", "reason", "detail", "original")),
        *_FILE_COLUMNS,
        *_HASH_COLUMNS,
    ]
)


def parquet_of(rows: Iterable[KeptRow] | Iterable[DroppedRow], schema: pa.Schema) -> bytes:
    """The bytes of a table as a parquet file; equal rows give equal bytes."""
    out = BytesIO()
    records: list[dict[str, Any]] = [asdict(row) for row in rows]
    pq.write_table(pa.Table.from_pylist(records, schema=schema), out, **DENSE)
    return out.getvalue()


def read_kept(lake: Lake, curated: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """The curated table (`KEPT_SCHEMA`) or some of its columns, sorted by title. Raises CorruptFile."""
    return _table(lake, curated, columns, dropped=False)


def read_dropped(lake: Lake, curated: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """The dropped table (`DROPPED_SCHEMA`) or some of its columns, sorted by title. Raises CorruptFile."""
    return _table(lake, curated, columns, dropped=True)


def kept_blocks(lake: Lake, curated: Manifest, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the curated table, block by block, in the order of titles. Raises CorruptFile."""
    path = _path(curated, dropped=False)
    with lake.local(path) as local:
        yield from table_blocks(local, lake.full(path), columns)


def _table(lake: Lake, curated: Manifest, columns: Sequence[str] | None, *, dropped: bool) -> pa.Table:
    path = _path(curated, dropped=dropped)
    with lake.local(path) as local:
        return read_table(local, lake.full(path), columns)


def _path(curated: Manifest, *, dropped: bool) -> str:
    paths = [file.path for file in curated.files if file.path.endswith(".dropped.parquet") is dropped]
    if len(paths) != 1:
        raise CorruptFile(
            f"curate's manifest {curated.identity[:12]}… names {len(paths)} tables of what was "
            f"{'dropped' if dropped else 'kept'}: expected one; delete it and run curate again"
        )
    return paths[0]


def picture_sizes(lake: Lake) -> dict[str, int]:
    """Path -> bytes of every original and normalised copy, from two listings: a look-up for each picture would be a
    request each on a remote lake."""
    return lake.sizes("originals") | lake.sizes(COPIES)


def copies_missing(lake: Lake, curated: Manifest) -> list[str]:
    """Paths of normal forms that are not in the lake with their size; img2dataset would count them as failed."""
    missing: list[str] = []
    # On a disk block by block; on an object store all at once, where one listing answers for a thousand.
    unchecked: list[tuple[str, int]] = []
    for block in kept_blocks(lake, curated, ["path", "num_bytes"]):
        unchecked += zip(block.column(0).to_pylist(), block.column(1).to_pylist(), strict=True)
        if lake.is_local:
            missing += _missing_among(lake, unchecked)
            unchecked = []
    return missing + _missing_among(lake, unchecked)


def _missing_among(lake: Lake, files: list[tuple[str, int]]) -> list[str]:
    # In an imported dataset the normal forms lie in the tars, so these paths are those of the tars.
    sizes = lake.sizes_of(path for path, _ in files)
    return [path for path, num_bytes in files if sizes.get(path) != num_bytes]
