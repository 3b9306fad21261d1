"""Rows -> the scrape's manifest: the catalogue, named by what it says, and tombstones for what is gone since the last.

A wiki that is as it was publishes nothing; one that is as it was some snapshots ago makes that snapshot the newest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sp_data.errors import CorruptFile
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest, identity_of, is_done, publish
from sp_data.stage import StageResult, StageRun, library_versions
from sp_data.wiki.catalogue import OK, TOMBSTONES, CatalogueRow, read_catalogue, rows_digest, write_catalogue
from sp_data.wiki.tombstones import Buried, Tombstone, bury, read_tombstones, write_tombstones

log = logging.getLogger(__name__)

STAGE = "scrape"
NAMED_IN_THE_LOG = 10

Whereabouts = Callable[[list[str]], Mapping[str, str]]
"""Titles that are gone -> the title of the file that is there now, for those that there are."""


def publish_catalogue(
    run: StageRun, rows: list[CatalogueRow], *, clock: str, whereabouts: Whereabouts, fetched: bool
) -> StageResult:
    """Make these rows the newest catalogue. `clock`: when they were true (ISO 8601); `fetched`: if pictures came."""
    newest = run.newest()
    tombstones = _bury(run.lake, newest, rows, clock, whereabouts)
    wiki = run.recipe.source.place
    return _publish(run.version, run.identity_fields, wiki, run.lake, rows, newest, tombstones, fetched=fetched)


def republish_catalogue(lake: Lake, newest: Manifest, rows: list[CatalogueRow]) -> StageResult:
    """Make rows of the same titles the newest catalogue, without asking the wiki: what is on it did not change."""
    tombstones = [entry for entry in newest.files if entry.path.startswith(TOMBSTONES)]
    wiki = newest.details["wiki"]
    return _publish(newest.version, newest.recipe, wiki, lake, rows, newest, tombstones, fetched=False)


def _publish(
    version: int,
    recipe: Mapping[str, Any],
    wiki: str,
    lake: Lake,
    rows: list[CatalogueRow],
    newest: Manifest | None,
    tombstones: list[FileEntry],
    *,
    fetched: bool,
) -> StageResult:
    digest = rows_digest(rows)
    inputs = {"wiki": digest}
    done = is_done(lake, STAGE, identity_of(STAGE, version, recipe, inputs))
    if done is not None:
        files = (*(file for file in done.files if not file.path.startswith(TOMBSTONES)), *tombstones)
        if newest is None or newest.identity != done.identity or files != done.files:
            # It keeps the history that it had: otherwise snapshots could come before themselves.
            done = done.model_copy(update={"files": files})
            publish(lake, done)
            return StageResult(done, "done")
        return StageResult(done, "done" if fetched else "unchanged")
    statuses = Counter(row.status for row in rows)
    originals = {row.original: row.bytes for row in rows if row.original is not None}
    manifest = Manifest.make(
        stage=STAGE,
        version=version,
        recipe=recipe,
        inputs=inputs,
        counts=Counts.model_validate(
            {"in": len(rows), "out": statuses.pop(OK, 0), "dropped": dict(sorted(statuses.items()))}
        ),
        files=[write_catalogue(lake, rows, digest), *tombstones],
        details={"wiki": wiki, "rows": len(rows), "num_pictures_bytes": sum(originals.values())},
        versions=library_versions("requests", "beautifulsoup4", "mwparserfromhell"),
        previous=newest,
    )
    publish(lake, manifest)
    return StageResult(manifest, "done")


def _bury(
    lake: Lake, newest: Manifest | None, rows: list[CatalogueRow], clock: str, whereabouts: Whereabouts
) -> list[FileEntry]:
    """The tombstones of this catalogue: those there were, of what did not come back, and new ones."""
    if newest is None:
        return []
    titles = {row.title for row in rows}
    old: list[dict[str, Any]] = []
    standing: list[Tombstone] = []
    try:
        old = read_catalogue(lake, newest).select(list(Buried.__slots__)).to_pylist()
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("what is gone since the last scrape is not known: %s", error)
    try:
        standing = read_tombstones(lake, newest)
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("what was gone before is not known any more: %s", error)
    gone = [Buried(**row) for row in old if row["title"] not in titles]
    fresh = bury(gone, rows, whereabouts([was.title for was in gone]) if gone else {}, clock)
    if fresh:
        named = ", ".join(f"{one.title} ({one.reason})" for one in fresh[:NAMED_IN_THE_LOG])
        log.info("%d gone since the last scrape: %s%s", len(fresh), named, ", ..." if fresh[NAMED_IN_THE_LOG:] else "")
    kept = [one for one in standing if one.title not in titles]
    entry = write_tombstones(lake, {one.title: one for one in (*kept, *fresh)}.values())
    return [entry] if entry else []
