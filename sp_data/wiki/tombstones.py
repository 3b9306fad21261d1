"""What was in the catalogue and is no more: a row a file, with what became of it.

    Tombstone(title='File:Old.png', reason='moved', moved_to='File:New.png', found_at='2026-11-22T23:58:58Z', ...)

They lie beside the catalogue, catalogue/tombstones-<digest>.parquet, and outside its digest: a catalogue says what
there is, whatever there was before. A file that comes back loses its tombstone.
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
    """`moved_to` is a title, for what was moved; `found_at` the wiki's time when it was missed (ISO 8601, UTC)."""

    title: str
    page_id: int | None
    sha1: str
    reason: Reason
    moved_to: str | None
    found_at: str

    def __str__(self) -> str:
        what = {"moved": f"moved to {self.moved_to}", "deleted": "deleted", "not-selected": "not selected any more"}
        return f"{self.title}: {what[self.reason]}, found on {self.found_at[:10]}"


@dataclass(frozen=True, slots=True)
class Buried:
    """A row that is gone: as much of it as a tombstone needs."""

    title: str
    page_id: int | None
    sha1: str


SCHEMA = pa.schema([(name, pa.int64() if name == "page_id" else pa.string()) for name in Tombstone.__slots__])


def bury(
    gone: Iterable[Buried], rows: Iterable[CatalogueRow], now: Mapping[str, str], found_at: str
) -> list[Tombstone]:
    """A tombstone for each. `now`: title -> title of the file that the wiki has there, by way of a redirect or not;
    one that it has as before is not selected any more."""
    by_page = {row.page_id: row.title for row in rows if row.page_id is not None}
    made = []
    for was in gone:
        # A file that is moved keeps its page; what stays behind under the old name is a new one.
        moved_to = by_page.get(was.page_id) if was.page_id is not None else None
        moved_to = moved_to or now.get(was.title)
        if moved_to == was.title:
            made.append(Tombstone(was.title, was.page_id, was.sha1, "not-selected", None, found_at))
        else:
            reason: Reason = "moved" if moved_to else "deleted"
            made.append(Tombstone(was.title, was.page_id, was.sha1, reason, moved_to, found_at))
    return made


def write_tombstones(lake: Lake, tombstones: Iterable[Tombstone]) -> FileEntry | None:
    """Publish them, sorted by title; None if there are none."""
    listed = [asdict(tombstone) for tombstone in sorted(tombstones, key=lambda tombstone: tombstone.title)]
    if not listed:
        return None
    out = io.BytesIO()
    pq.write_table(table_of(map(json.dumps, listed), SCHEMA), out, **DENSE)
    return lake.write_bytes(f"{TOMBSTONES}{digest_of(listed)[:16]}.parquet", out.getvalue(), timed=True)


def read_tombstones(lake: Lake, manifest: Manifest | None) -> list[Tombstone]:
    """Those that a scrape's manifest names, sorted by title. Raises CorruptFile."""
    found: list[Tombstone] = []
    for entry in manifest.files if manifest else ():
        if entry.path.startswith(TOMBSTONES):
            with lake.local(entry.path) as path:
                table = read_table(path, lake.full(entry.path), SCHEMA.names)
            found += [Tombstone(**row) for row in table.to_pylist()]
    return found
