"""The scrape stage: wiki -> catalogue and originals.

list the files, read the articles and file pages, fetch the originals that are not there yet, publish the catalogue.
A run that ends early, however it ends, leaves its originals; the next one lists again and fetches the rest. The
catalogue is named by what it says, so a wiki that did not change publishes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator

from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, identity_of, is_done, latest, publish
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Source
from sp_data.stage import VERSION_OF, StageResult, library_versions
from sp_data.wiki.captions import Index, Page, choose
from sp_data.wiki.catalogue import (
    OK,
    Caption,
    CatalogueRow,
    read_catalogue,
    rows_digest,
    write_catalogue,
)
from sp_data.wiki.client import WikiClient
from sp_data.wiki.filepage import NO_PAGE, FilePage
from sp_data.wiki.listing import Listing, WikiFile, list_files
from sp_data.wiki.originals import Originals, original_path
from sp_data.wiki.pages import read_articles, read_file_pages, read_rendered

log = logging.getLogger(__name__)

STAGE = "scrape"
VERSION = VERSION_OF[STAGE]
PICTURES_A_LINE = 500


def scrape(source: Source, lake: Lake, *, progress: Progress = SILENT) -> StageResult:
    """Bring the lake's originals and catalogue up to what the wiki has now.

    Raises RecipeError (manners), WikiError, LakeError. What was fetched until then stays.
    """
    source.check_manners()
    # The lake first: a busy one must not cost the wiki a request.
    with lake.writer(), _open(source) as client:
        return scrape_with(client, lake, progress=progress)


def scrape_with(client: WikiClient, lake: Lake, *, progress: Progress = SILENT) -> StageResult:
    """The same with a client that is there already."""
    started = time.monotonic()
    with lake.writer():
        # Reading a wiki of thousands of pages at one request a second takes minutes; how many it has is not known yet.
        progress.begin("list", None, "pages")
        listing = list_files(client)
        file_pages = read_file_pages(client, listing.files)
        index = Index((file.name for file in listing.files), listing.aliases)
        for page in _pages(client):
            index.add(page)
            progress.advance()
        originals = Originals(client, lake)
        statuses = _fetch_all(originals, listing, progress)
        rows = [
            _row(file, file_pages.get(file.name, NO_PAGE), index, client.source.caption_templates, statuses[file.name])
            for file in listing.files
        ]
        log.info(
            "%d of %d pictures are there, %d new (%.1f MB); %d requests, %.0f s",
            sum(row.status == OK for row in rows),
            len(rows),
            originals.num_fetched,
            originals.num_bytes / 1e6,
            client.transport.num_requests,
            time.monotonic() - started,
        )
        return _publish(client.source, lake, rows, fetched=originals.num_fetched > 0)


def originals_missing(lake: Lake, manifest: Manifest) -> list[str]:
    """Lake paths of the originals that a catalogue counts on and that are gone or of another size, sorted."""
    table = read_catalogue(lake, manifest).select(["status", "original", "bytes"])
    sizes = {row["original"]: row["bytes"] for row in table.to_pylist() if row["status"] == OK}
    return sorted(path for path, size in sizes.items() if lake.size(path) != size)


@contextlib.contextmanager
def _open(source: Source) -> Iterator[WikiClient]:
    with contextlib.ExitStack() as stack:
        proxy = None
        if source.demo is not None:
            from sp_data.demo.server import DemoWiki
            from sp_data.demo.world import build_world

            world = build_world(source.demo.num_kids, source.demo.seed)
            proxy = stack.enter_context(DemoWiki(world)).url
        yield stack.enter_context(WikiClient(source, proxy))


def _pages(client: WikiClient) -> Iterator[Page]:
    yield from read_articles(client)
    yield from read_rendered(client)


def _fetch_all(originals: Originals, listing: Listing, progress: Progress) -> dict[str, str]:
    """Name -> what became of its original."""
    total = len(listing.files)
    progress.begin(STAGE, total, "pictures")
    statuses: dict[str, str] = {}
    for number, file in enumerate(listing.files, start=1):
        statuses[file.name] = originals.ensure(file)
        progress.advance()
        if number % PICTURES_A_LINE == 0:
            log.info("%d of %d pictures, %.1f MB fetched", number, total, originals.num_bytes / 1e6)
    return statuses


def _row(file: WikiFile, page: FilePage, index: Index, templates: tuple[str, ...], status: str) -> CatalogueRow:
    owner = index.owner(file.name)
    candidates = index.candidates(file.name, page.summary)
    return CatalogueRow(
        title=file.title,
        name=file.name,
        page_id=file.page_id,
        url=file.url,
        sha1=file.sha1,
        bytes=file.bytes,
        mime=file.mime,
        width=file.width,
        height=file.height,
        uploaded_at=file.uploaded_at,
        uploader=file.uploader,
        licence=page.licence,
        categories=file.categories,
        templates=page.templates,
        owner_title=owner.page.title if owner else None,
        owner_page_id=owner.page.page_id if owner else None,
        owner_revision=owner.page.revision if owner else None,
        captions=tuple(Caption(text=found.text, source=found.source, page=found.page) for found in candidates),
        caption=choose(candidates, owner, templates),
        status=status,
        original=original_path(file) if status == OK else None,
    )


def _publish(source: Source, lake: Lake, rows: list[CatalogueRow], *, fetched: bool) -> StageResult:
    digest = rows_digest(rows)
    recipe, inputs = source.what(), {"wiki": digest}
    newest = latest(lake, STAGE)
    done = is_done(lake, STAGE, identity_of(STAGE, VERSION, recipe, inputs))
    if done is not None:
        if newest is None or newest.identity != done.identity:
            # The wiki is again as it was some snapshots ago; that one becomes the newest, with the history it had.
            publish(lake, done)
            return StageResult(done, "done")
        return StageResult(done, "done" if fetched else "unchanged")
    statuses = Counter(row.status for row in rows)
    originals = {row.original: row.bytes for row in rows if row.original is not None}
    manifest = Manifest.make(
        stage=STAGE,
        version=VERSION,
        recipe=recipe,
        inputs=inputs,
        counts=Counts.model_validate(
            {"in": len(rows), "out": statuses.pop(OK, 0), "dropped": dict(sorted(statuses.items()))}
        ),
        files=[write_catalogue(lake, rows, digest)],
        details={"wiki": source.wiki, "rows": len(rows), "num_pictures_bytes": sum(originals.values())},
        versions=library_versions("requests", "beautifulsoup4", "mwparserfromhell"),
        previous=newest,
    )
    publish(lake, manifest)
    return StageResult(manifest, "done")
