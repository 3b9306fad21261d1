"""The scrape stage for a list of addresses (addresses.py): one request a picture, none for pictures already fetched.

Size and sha1 of a picture are not known beforehand, so its bytes only have to be a picture of a wanted type. An address
that gave its picture is never asked again; a new picture needs a new address. One that gave none is asked again as
refusals.py says. A host that fails again and again is skipped for the rest of the run.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from sp_data.canonical import digest_of
from sp_data.errors import CorruptFile, ListShrank
from sp_data.lake import Lake
from sp_data.manifest import latest
from sp_data.recipe import Source
from sp_data.stage import StageResult, StageRun
from sp_data.wiki.addresses import Address, read_addresses
from sp_data.wiki.captions.candidates import CaptionCandidate
from sp_data.wiki.captions.clip_length import shortened
from sp_data.wiki.catalogue import OK, Caption, CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.fetch_addresses import AddressFetcher, FetchOutcome, outcome_of
from sp_data.wiki.forgotten import FORGOTTEN, Forgotten, read_forgotten
from sp_data.wiki.http.guard import PRIVATE
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.http.transport import Transport
from sp_data.wiki.list_state import Failures, load_failures, save_failures
from sp_data.wiki.originals import original_name
from sp_data.wiki.parse.titles import cleaned_name, normal_name
from sp_data.wiki.publish import STAGE, check_size, publish_catalogue
from sp_data.wiki.refusals import NEVER_TRIED, NO_AI

log = logging.getLogger(__name__)

RUN = digest_of(["addresses"])
"""The journal's name of a run of any list: what came from an address holds for it in every list."""


def scrape_addresses(
    run: StageRun,
    *,
    reconcile: bool = False,
    allow_shrink: bool = False,
    proxy: str | None = None,
    robots: RobotsCache,
) -> StageResult:
    """Fetch the new pictures of the list and publish its catalogue.

    `reconcile`: ask again for every picture that did not come. Raises RecipeError, ListShrank, LakeError, and WikiError
    if there is no picture at all because no host could be reached.
    """
    source, lake, newest = run.recipe.source, run.lake, run.newest()
    addresses = read_addresses(source.addresses, source.encoding)
    forgotten, failures = read_forgotten(lake), load_failures(lake)
    known = _known(source, lake, addresses, forgotten, failures, reconcile=reconcile)
    check_size(run, newest, _num_hopeful(addresses, known), allow_shrink=allow_shrink)
    journal = Journal(lake)
    # A long list takes days: what came from an address does not expire.
    journal.begin(RUN, lasts_s=math.inf)
    to_fetch = [address.url for address in addresses if address.url not in known]
    with Transport(source, proxy, robots) as transport:
        fetcher = AddressFetcher(source, lake, transport, journal, forgotten, failures, asks_all=reconcile)
        run.progress.begin(STAGE, len(to_fetch), "pictures")
        outcomes = known | fetcher.fetch_all(to_fetch, run.progress.advance)
    num_ok = sum(outcome.status == OK for outcome in outcomes.values())
    log.info("%d of %d pictures are there, %d new", num_ok, len(addresses), fetcher.num_fetched)
    if fetcher.first_error and not num_ok and not (newest and newest.counts.out):
        # The next run asks again for all of them.
        journal.clear()
        raise fetcher.first_error
    try:
        check_size(run, newest, num_ok, allow_shrink=allow_shrink)
    except ListShrank:
        # The next run asks again for what did not come, and for nothing else: the host may be whole by then.
        journal.forget(lambda entry: outcome_of(entry)[0].status != OK)
        raise
    rows = [_row(address, outcomes[address.url]) for address in addresses]
    result = publish_catalogue(
        run,
        sorted(rows, key=lambda row: row.title),
        clock=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        # A picture that left the list may still be at its address.
        current_titles=lambda titles: {title: title for title in titles},
        fetched=fetcher.num_fetched > 0,
    )
    listed = {address.url for address in addresses}
    save_failures(lake, {url: failure for url, failure in failures.items() if url in listed})
    journal.clear()
    return result


def addresses_to_fetch(source: Source, lake: Lake, *, reconcile: bool = False) -> tuple[list[str], int, int]:
    """Addresses on the list that have to be fetched, how many addresses the list has, and how many of them are there or
    may come. Raises RecipeError."""
    addresses = read_addresses(source.addresses, source.encoding)
    known = _known(source, lake, addresses, read_forgotten(lake), load_failures(lake), reconcile=reconcile)
    to_fetch = [address.url for address in addresses if address.url not in known]
    return to_fetch, len(addresses), _num_hopeful(addresses, known)


def _num_hopeful(addresses: Iterable[Address], known: Mapping[str, FetchOutcome]) -> int:
    return sum(address.url not in known or known[address.url].status == OK for address in addresses)


def without_forgotten(rows: Iterable[CatalogueRow], forgotten: Forgotten) -> list[CatalogueRow]:
    """The rows that a scrape would make with this list of forgotten pictures.

    They have no sha1, size and type, which only fetching a picture tells.
    """
    changes = {"status": FORGOTTEN, "original": None, "sha1": "", "bytes": 0, "mime": "", "width": 0, "height": 0}
    return [row.model_copy(update=changes) if forgotten.covers(row.title, row.sha1) else row for row in rows]


def _known(
    source: Source,
    lake: Lake,
    addresses: Iterable[Address],
    forgotten: Forgotten,
    failures: Failures,
    *,
    reconcile: bool,
) -> dict[str, FetchOutcome]:
    """Address -> its outcome, for those that need no request in this run: there, not to be had, or not due again."""
    earlier = _outcomes_before(lake)
    now = time.time()
    widened = _wants_more(source, lake)
    known: dict[str, FetchOutcome] = {}
    for address in addresses:
        url = address.url
        failure = failures.get(url, NEVER_TRIED)
        if url in forgotten.titles:
            known[url] = FetchOutcome(FORGOTTEN)
        elif address.status:
            known[url] = FetchOutcome(address.status)
        elif url in earlier and (earlier[url].status != NO_AI or not reconcile):
            known[url] = earlier[url]
        elif failure.status and not reconcile and not failure.is_due(now):
            ruled_out_before = failure.status.startswith("mime-not-wanted") or failure.status == "too-large"
            leave_came = source.allow_private_addresses and PRIVATE in failure.status
            if not (widened and ruled_out_before) and not leave_came:
                known[url] = FetchOutcome(failure.status)
    return known


def _outcomes_before(lake: Lake) -> dict[str, FetchOutcome]:
    """Address -> its outcome in the newest catalogue, if it holds: the original is there, or is not to be fetched."""
    sizes = lake.sizes("originals")

    def holds(row: CatalogueRow) -> bool:
        if row.status == OK:
            return sizes.get(original_name(row.sha1, row.mime)) == row.bytes
        return row.status in (NO_AI, FORGOTTEN)

    return {
        row.url: FetchOutcome(row.status, row.sha1, row.bytes, row.mime, row.width, row.height)
        for row in _rows_before(lake)
        if holds(row)
    }


def _rows_before(lake: Lake) -> Iterator[CatalogueRow]:
    newest = latest(lake, STAGE)
    if newest is None:
        return
    try:
        yield from catalogue_rows(read_catalogue(lake, newest))
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("pictures of earlier runs are fetched again, as their catalogue cannot be read: %s", error)


def _wants_more(source: Source, lake: Lake) -> bool:
    """Whether the recipe wants other types or sizes than the newest catalogue was made with."""
    newest = latest(lake, STAGE)
    fields = source.identity_fields()
    return newest is not None and any(
        newest.recipe.get(name) != fields[name] for name in ("mime_types", "max_file_bytes")
    )


def _row(address: Address, outcome: FetchOutcome) -> CatalogueRow:
    name = _name(address.url)
    candidates = [CaptionCandidate(address.caption, "given", address.url)] if address.caption else []
    candidates.append(CaptionCandidate(cleaned_name(name), "name", address.url))
    return CatalogueRow(
        title=address.url,
        name=name,
        page_id=None,
        url=address.url,
        sha1=outcome.sha1,
        bytes=outcome.bytes,
        mime=outcome.mime,
        width=outcome.width,
        height=outcome.height,
        uploaded_at="",
        uploader=None,
        licence=address.licence,
        categories=(),
        templates=(),
        owner_title=None,
        owner_page_id=None,
        owner_revision=None,
        subject=cleaned_name(name),
        attributes=(),
        captions=tuple(Caption(text=c.text, source=c.source, page=c.page) for c in candidates),
        caption=shortened(candidates[0].text),
        variants=(),
        status=outcome.status,
        original=original_name(outcome.sha1, outcome.mime) if outcome.status == OK else None,
    )


def _name(url: str) -> str:
    """'.../h/hh/Ada_Birch.png/revision/latest?cb=1' -> 'Ada Birch.png'."""
    try:
        path = unquote(urlsplit(url).path).partition("/revision/")[0]
    except ValueError:
        path = ""
    return normal_name(path.rstrip("/").rpartition("/")[2]) or url
