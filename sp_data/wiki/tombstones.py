"""Tombstones of files that left the catalogue: a row a file, with what became of it.

    Tombstone(title='File:Old.png', reason='moved', moved_to='File:New.png', found_at='2026-11-22T23:58:58Z', ...)

They lie beside the catalogue, in catalogue/tombstones-<digest>.parquet, and outside its digest: a catalogue depends on
what the wiki has now, not on its past. A file that comes back loses its tombstone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.canonical import digest_of
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Manifest
from sp_data.parquet import DENSE, read_table, table_of
from sp_data.wiki.catalogue import TOMBSTONES, CatalogueRow

Reason = Literal["moved", "deleted", "not-selected"]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`moved_to`: the new title of a moved file. `found_at`: the wiki's time when the file was found missing (ISO 8601,
    UTC)."""

    title: str
    page_id: int | None
    sha1: str
    reason: Reason
    moved_to: str | None
    found_at: str

    def __str__(self) -> str:
        outcomes = {"moved": f"moved to {self.moved_to}", "deleted": "deleted", "not-selected": "not selected any more"}
        return f"{self.title}: {outcomes[self.reason]}, found on {self.found_at[:10]}"


@dataclass(frozen=True, slots=True)
class GoneRow:
    """A row that left the catalogue: the fields that a tombstone needs."""

    title: str
    page_id: int | None
    sha1: str


SCHEMA = pa.schema([(name, pa.int64() if name == "page_id" else pa.string()) for name in Tombstone.__slots__])


def make_tombstones(
    gone: Iterable[GoneRow], rows: Iterable[CatalogueRow], current_titles: Mapping[str, str], found_at: str
) -> list[Tombstone]:
    """A tombstone for each row that is gone.

    `current_titles`: old title -> title of the file that the wiki has there now, redirects followed. A file with an
    unchanged title is still on the wiki; the source does not select it any more.
    """
    by_page = {row.page_id: row.title for row in rows if row.page_id is not None}
    tombstones = []
    for row in gone:
        # A moved file keeps its page id; a redirect left under the old name is a new page.
        moved_to = by_page.get(row.page_id) if row.page_id is not None else None
        moved_to = moved_to or current_titles.get(row.title)
        if moved_to == row.title:
            tombstones.append(Tombstone(row.title, row.page_id, row.sha1, "not-selected", None, found_at))
        else:
            reason: Reason = "moved" if moved_to else "deleted"
            tombstones.append(Tombstone(row.title, row.page_id, row.sha1, reason, moved_to, found_at))
    return tombstones


def write_tombstones(lake: Lake, tombstones: Iterable[Tombstone]) -> FileEntry | None:
    """Publish the tombstones, sorted by title; None if there are none."""
    rows = [asdict(tombstone) for tombstone in sorted(tombstones, key=lambda tombstone: tombstone.title)]
    if not rows:
        return None
    out = io.BytesIO()
    pq.write_table(table_of(map(json.dumps, rows), SCHEMA), out, **DENSE)
    return lake.write_bytes(f"{TOMBSTONES}{digest_of(rows)[:16]}.parquet", out.getvalue(), timed=True)


def read_tombstones(lake: Lake, manifest: Manifest | None) -> list[Tombstone]:
    """The tombstones of a scrape's manifest, sorted by title. Raises CorruptFile."""
    tombstones: list[Tombstone] = []
    for entry in manifest.files if manifest else ():
        if entry.path.startswith(TOMBSTONES):
            with lake.local(entry.path) as path:
                table = read_table(path, lake.full(entry.path), SCHEMA.names)
            tombstones += [Tombstone(**row) for row in table.to_pylist()]
    return tombstones
