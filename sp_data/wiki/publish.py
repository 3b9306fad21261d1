"""Rows -> the scrape's manifest: the catalogue, named by its content, and tombstones for files gone since the last one.

If the wiki did not change, nothing is published. If it is again as it was some snapshots ago, that snapshot becomes the
newest.

A list that was saved half, a portal that somebody emptied, a host that forgot its pictures: none of them may take a
dataset apart. So a catalogue that would lose all of its pictures, or more than half of many, is refused, unless the
person says that it is meant.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sp_data.errors import CorruptFile, ListShrank, NothingCame
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest, identity_of, is_done, publish
from sp_data.recipe import Source
from sp_data.stage import StageResult, StageRun, library_versions
from sp_data.wiki.catalogue import OK, TOMBSTONES, CatalogueRow, read_catalogue, rows_digest, write_catalogue
from sp_data.wiki.http.guard import PRIVATE
from sp_data.wiki.refusals import ADDRESS_REFUSED
from sp_data.wiki.tombstones import GoneRow, Tombstone, make_tombstones, read_tombstones, write_tombstones

log = logging.getLogger(__name__)

STAGE = "scrape"
NAMED_IN_THE_LOG = 10
MANY_ON_A_LIST, MANY_ON_A_WIKI = 10, 50
"""In a smaller catalogue the loss of half is no sign of a fault, only that of everything. A list is a file that may be
saved half; a portal of 25 pictures is reworked by its editors."""
SMALLEST_PART = 0.5
"""Half: what editors remove in a week is far less, and what a cut file or an emptied portal leaves is mostly less."""

CurrentTitles = Callable[[list[str]], Mapping[str, str]]
"""Titles that left the catalogue -> the title under which the wiki has the file now. Titles without a file are left
out."""


def publish_catalogue(
    run: StageRun,
    rows: list[CatalogueRow],
    *,
    clock: str,
    current_titles: CurrentTitles,
    fetched: bool,
    num_unread: int = 0,
) -> StageResult:
    """Make these rows the newest catalogue.

    `clock`: the time for which they hold (ISO 8601). `fetched`: whether this run fetched pictures.
    `num_unread`: how many of the wiki's pages could not be read.
    """
    newest = run.newest()
    tombstones = _update_tombstones(run.lake, newest, rows, clock, current_titles)
    wiki = run.recipe.source.place
    details = {"wiki": wiki} | ({"num_pages_unread": num_unread} if num_unread else {})
    return _publish(run.version, run.identity_fields, details, run.lake, rows, newest, tombstones, fetched=fetched)


def check_size(run: StageRun, newest: Manifest | None, num_pictures: int, *, allow_shrink: bool) -> None:
    """Raises ListShrank if the newest catalogue has far more pictures than the `num_pictures` that are left."""
    change = shrinkage(run.recipe.source, newest, run.lake, num_pictures)
    if not change:
        return
    if allow_shrink:
        log.warning("%s, as --allow-shrink says", change)
        return
    raise ListShrank(
        f"{change}: nothing was changed; is the source whole? Then run the same command "
        f"again. If it is meant, run {run.lake.command('scrape', '--allow-shrink')}"
    )


def shrinkage(source: Source, newest: Manifest | None, lake: Lake, num_pictures: int) -> str:
    """What a scrape that finds `num_pictures` refuses without --allow-shrink, in words; empty: nothing."""
    before = newest.counts.out if newest else 0
    many = MANY_ON_A_LIST if source.addresses else MANY_ON_A_WIKI
    if num_pictures > 0 and (before < many or num_pictures >= before * SMALLEST_PART):
        return ""
    if before == 0:
        return ""
    left = f"{num_pictures:,} are" if num_pictures > 1 else "one is" if num_pictures else "none is"
    return f"the last catalogue of {lake.dataset!r} has {before:,} pictures, and {left} left in {source.place}"


def require_pictures(lake: Lake, manifest: Manifest) -> None:
    """Raises NothingCame if a catalogue has no picture; the message names the reasons."""
    if manifest.counts.out or not manifest.counts.in_:
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest.counts.dropped.items())
    again, at_home = "--reconcile", ""
    if f"{ADDRESS_REFUSED} ({PRIVATE})" in manifest.counts.dropped:
        again, at_home = f"{again} --set source.allow_private_addresses=true", ", if they are in your own network"
    raise NothingCame(
        f"none of the {manifest.counts.in_:,} pictures of {manifest.details['wiki']} came: {reasons}; "
        f"{lake.command('why --recipe')} lists them, {lake.command('scrape', again)} asks for all of them again"
        f"{at_home}"
    )


def republish_catalogue(lake: Lake, newest: Manifest, rows: list[CatalogueRow]) -> StageResult:
    """Make rows with the same titles the newest catalogue, without a request: the wiki did not change."""
    tombstones = [entry for entry in newest.files if entry.path.startswith(TOMBSTONES)]
    details = {name: value for name, value in newest.details.items() if name in ("wiki", "num_pages_unread")}
    return _publish(newest.version, newest.recipe, details, lake, rows, newest, tombstones, fetched=False)


def _publish(
    version: int,
    recipe: Mapping[str, Any],
    details: Mapping[str, Any],
    lake: Lake,
    rows: list[CatalogueRow],
    newest: Manifest | None,
    tombstones: list[FileEntry],
    *,
    fetched: bool,
) -> StageResult:
    digest = rows_digest(rows)
    inputs = {"wiki": digest}
    existing = is_done(lake, STAGE, identity_of(STAGE, version, recipe, inputs))
    if existing is not None:
        files = (*(file for file in existing.files if not file.path.startswith(TOMBSTONES)), *tombstones)
        if newest is None or newest.identity != existing.identity or files != existing.files:
            # It keeps its `previous`: with another one, a snapshot could become its own predecessor.
            existing = existing.model_copy(update={"files": files})
            publish(lake, existing)
            return StageResult(existing, "done")
        return StageResult(existing, "done" if fetched else "unchanged")
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
        details={**details, "rows": len(rows), "num_pictures_bytes": sum(originals.values())},
        versions=library_versions("requests", "beautifulsoup4", "mwparserfromhell"),
        previous=newest,
    )
    publish(lake, manifest)
    return StageResult(manifest, "done")


def _update_tombstones(
    lake: Lake, newest: Manifest | None, rows: list[CatalogueRow], clock: str, current_titles: CurrentTitles
) -> list[FileEntry]:
    """The tombstones of this catalogue: the earlier ones whose files did not come back, and new ones."""
    if newest is None:
        return []
    titles = {row.title for row in rows}
    old: list[dict[str, Any]] = []
    earlier: list[Tombstone] = []
    try:
        old = read_catalogue(lake, newest).select(list(GoneRow.__slots__)).to_pylist()
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("files that are gone since the last scrape get no tombstone: %s", error)
    try:
        earlier = read_tombstones(lake, newest)
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("the earlier tombstones are lost: %s", error)
    gone = [GoneRow(**row) for row in old if row["title"] not in titles]
    fresh = make_tombstones(gone, rows, current_titles([row.title for row in gone]) if gone else {}, clock)
    if fresh:
        named = ", ".join(f"{tombstone.title} ({tombstone.reason})" for tombstone in fresh[:NAMED_IN_THE_LOG])
        log.info("%d gone since the last scrape: %s%s", len(fresh), named, ", ..." if fresh[NAMED_IN_THE_LOG:] else "")
    kept = [tombstone for tombstone in earlier if tombstone.title not in titles]
    entry = write_tombstones(lake, {tombstone.title: tombstone for tombstone in (*kept, *fresh)}.values())
    return [entry] if entry else []
