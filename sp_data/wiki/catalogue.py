"""The catalogue: one row for each file of the wiki, whatever became of it. Every later stage starts from it.

    CatalogueRow(title='File:Ada Birch.png', name='Ada Birch.png', page_id=8, sha1='5f0c…', bytes=1143,
                 mime='image/png', ..., licence='Fairuse', owner_title='Ada Birch', owner_revision=10,
                 subject='Ada Birch', attributes=[Attribute(field='coat', value='red'), ...],
                 captions=[Caption(text='Ada at the lake', source='gallery', page='Ada Birch'), ...],
                 caption='a kid in a red coat', status='ok', original='originals/5f/5f0c….png')

It is a parquet file, catalogue/<first 16 of the rows' digest>.parquet, sorted by title; equal rows make equal bytes.
Files that are gone from the wiki are not in it: they have tombstones beside it (tombstones.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from sp_data.canonical import digest_of
from sp_data.errors import CorruptFile
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Manifest
from sp_data.parquet import DENSE, read_table, table_of
from sp_data.wiki.captions.candidates import SourceKind

ROWS_A_GROUP = 10_000
OK = "ok"
TOMBSTONES = "catalogue/tombstones-"
"""Prefix of the paths of tombstone tables (tombstones.py)."""


class Caption(BaseModel):
    """A caption that a picture could have. `page`: title of the page that has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    source: SourceKind
    page: str


class Attribute(BaseModel):
    """A field of an infobox and its value, e.g. hair = brown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    value: str


class CatalogueRow(BaseModel):
    """A file of the wiki. `status` is 'ok', or the reason why there is no original."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """Canonical: 'File:' and the name, in every language."""
    name: str
    page_id: int | None
    url: str
    sha1: str
    """Hex, as the wiki states it; the original was checked against it."""
    bytes: int
    mime: str
    width: int
    height: int
    uploaded_at: str
    """ISO 8601, UTC."""
    uploader: str | None
    licence: str | None
    """Name of the licence template on the file's page."""
    categories: tuple[str, ...]
    templates: tuple[str, ...]
    owner_title: str | None
    """The page whose infobox shows the picture, or that has its name."""
    owner_page_id: int | None
    owner_revision: int | None
    subject: str
    """Name of whom or what the picture shows."""
    attributes: tuple[Attribute, ...]
    """What the owner's infobox says of the subject, except its name: a name does not say what a picture shows."""
    captions: tuple[Caption, ...]
    """Best first."""
    caption: str
    """The chosen one."""
    variants: tuple[str, ...]
    """Other captions for training, as many as the recipe asks for."""
    status: str
    original: str | None
    """Path of the bytes in the lake, if status is 'ok'."""


_TEXTS = pa.list_(pa.string())
_CAPTION = pa.struct([("text", pa.string()), ("source", pa.string()), ("page", pa.string())])
_COLUMN_TYPES: dict[str, pa.DataType] = {
    "page_id": pa.int64(),
    "bytes": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "categories": _TEXTS,
    "templates": _TEXTS,
    "owner_page_id": pa.int64(),
    "owner_revision": pa.int64(),
    "attributes": pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())])),
    "captions": pa.list_(_CAPTION),
    "variants": _TEXTS,
}
SCHEMA = pa.schema([(name, _COLUMN_TYPES.get(name, pa.string())) for name in CatalogueRow.model_fields])


def rows_digest(rows: Iterable[CatalogueRow]) -> str:
    """sha256 (hex) over the rows in their order."""
    return digest_of([digest_of(row.model_dump(mode="json")) for row in rows])


def write_catalogue(lake: Lake, rows: list[CatalogueRow], digest: str) -> FileEntry:
    """Publish rows, sorted by title, as the catalogue named by their digest."""
    table = table_of((row.model_dump_json() for row in rows), SCHEMA)
    with lake.scratch("catalogue") as folder:
        file = folder / "catalogue.parquet"
        pq.write_table(table, file, row_group_size=ROWS_A_GROUP, **DENSE)
        return lake.publish(file, f"catalogue/{digest[:16]}.parquet")


def read_catalogue(lake: Lake, manifest: Manifest) -> pa.Table:
    """The catalogue of a scrape's manifest, columns as in SCHEMA. Raises CorruptFile."""
    paths = [entry.path for entry in manifest.files if not entry.path.startswith(TOMBSTONES)]
    if len(paths) != 1:
        raise CorruptFile(
            f"the scrape's manifest {manifest.identity[:12]}… names {len(paths)} catalogues: expected one; "
            f"delete it and run {lake.command('scrape')}"
        )
    path = paths[0]
    with lake.local(path) as local_path:
        return read_table(local_path, lake.full(path), SCHEMA.names)


def catalogue_rows(table: pa.Table) -> Iterator[CatalogueRow]:
    """The table's rows, sorted by title."""
    for batch in table.to_batches(max_chunksize=1000):
        for row in cast("list[dict[str, object]]", batch.to_pylist()):
            yield CatalogueRow.model_validate(row)
