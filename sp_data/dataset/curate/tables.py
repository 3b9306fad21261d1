"""The two tables of curate: what was kept, and what was dropped and why. No picture is opened here.

curated/<identity>.parquet            one row a kept picture: title, split, caption, path of its normal form, ...
curated/<identity>.dropped.parquet    one row a dropped one: title, reason, detail
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.parquet import DENSE, read_table, table_blocks

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
COPIES_VERSION = 3
"""Of the normalised copies: raised, with the stage's own version, when a copy comes out differently."""
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
    pixels: bytes


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row of the dropped table."""

    title: str
    sha1: str
    reason: str
    """Of few words: what `counts` counts by."""
    detail: str
    original: str
    """Path of the original in the lake."""
    path: str | None = None
    """From here on: what was read of it, where it was dropped after that, so that it need not be read again."""
    num_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    phash: bytes | None = None
    thumb: bytes | None = None
    pixels: bytes | None = None


_READ = [
    ("path", pa.string()),
    ("num_bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
]
_LOOKS = [("phash", pa.binary()), ("thumb", pa.binary()), ("pixels", pa.binary())]
KEPT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("title", "sha1", "split", "caption", "variants")),
        *_READ,
        ("url", pa.string()),
        ("page", pa.string()),
        ("revision", pa.int64()),
        *((name, pa.string()) for name in ("licence", "uploader", "uploaded_at")),
        *_LOOKS,
    ]
)
DROPPED_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("title", "sha1", "reason", "detail", "original")), *_READ, *_LOOKS]
)


def parquet_of(rows: Iterable[KeptRow] | Iterable[DroppedRow], schema: pa.Schema) -> bytes:
    """A table as a file; equal rows make equal bytes."""
    out = BytesIO()
    listed: list[dict[str, Any]] = [asdict(row) for row in rows]
    pq.write_table(pa.Table.from_pylist(listed, schema=schema), out, **DENSE)
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
    (path,) = (file.path for file in curated.files if file.path.endswith(".dropped.parquet") is dropped)
    return path


def picture_sizes(lake: Lake) -> dict[str, int]:
    """Path -> bytes of every original and normalised copy, in two listings: one look a picture would be one request
    each where the lake is remote."""
    return lake.sizes("originals") | lake.sizes(COPIES)


def copies_missing(lake: Lake, curated: Manifest) -> list[str]:
    """Paths of normal forms that are not in the lake with their size; img2dataset would count them as failed."""
    missing: list[str] = []
    # On a disk block by block; of an object store all at once: a listing answers for a thousand.
    waiting: list[tuple[str, int]] = []
    for block in kept_blocks(lake, curated, ["path", "num_bytes"]):
        waiting += zip(block.column(0).to_pylist(), block.column(1).to_pylist(), strict=True)
        if lake.is_local:
            missing += _not_there(lake, waiting)
            waiting = []
    return missing + _not_there(lake, waiting)


def _not_there(lake: Lake, listed: list[tuple[str, int]]) -> list[str]:
    # Those of an imported dataset lie in its shards.
    sizes = lake.sizes_of(path for path, _ in listed)
    return [path for path, num_bytes in listed if sizes.get(path) != num_bytes]
