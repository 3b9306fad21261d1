"""The scrape stage for a list of addresses (addresses.py): one request a picture, none for pictures already fetched.

Size and sha1 of a picture are not known beforehand, so its bytes only have to be a picture of a wanted type. An address
is fetched once; a new picture needs a new address. A host that refuses is skipped for the rest of the run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, UnidentifiedImageError

from sp_data.canonical import digest_of
from sp_data.errors import CorruptFile, WikiBlocked, WikiUnreachable
from sp_data.lake import Lake
from sp_data.manifest import latest
from sp_data.recipe import Source
from sp_data.stage import StageResult, StageRun
from sp_data.wiki.addresses import Address, read_addresses
from sp_data.wiki.captions.candidates import CaptionCandidate
from sp_data.wiki.captions.clip_length import shortened
from sp_data.wiki.catalogue import OK, Caption, CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.forgotten import FORGOTTEN, Forgotten, read_forgotten
from sp_data.wiki.http.guard import PRIVATE
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import RobotsCache, forbids_training
from sp_data.wiki.http.transport import AddressRefused, Transport
from sp_data.wiki.originals import CUT_OFF, NO_AI, NOT_FOUND, TRIES, original_name, receive
from sp_data.wiki.parse.titles import cleaned_name, normal_name
from sp_data.wiki.publish import STAGE, publish_catalogue

log = logging.getLogger(__name__)

NOT_AN_IMAGE = "not-an-image"
REFUSALS_A_HOST = 3
"""After so many refusals in a row a host is skipped for the rest of the run."""
FANDOMS_CDN = "nocookie.net"


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """What came from an address. `status`: 'ok', or the reason why no original is kept."""

    status: str
    sha1: str = ""
    bytes: int = 0
    mime: str = ""
    width: int = 0
    height: int = 0


def scrape_addresses(run: StageRun, *, proxy: str | None, robots: RobotsCache) -> StageResult:
    """Fetch the new pictures of the list and publish its catalogue. Raises RecipeError, LakeError."""
    source, lake, progress = run.recipe.source, run.lake, run.progress
    addresses = read_addresses(source.addresses)
    forgotten = read_forgotten(lake)
    known = _known(lake, source)
    journal = Journal(lake)
    journal.begin(digest_of(["addresses", source.addresses]))
    with Transport(source, proxy, robots) as transport:
        fetcher = _Fetcher(source, lake, transport, journal, forgotten)
        progress.begin(STAGE, len(addresses), "pictures")
        rows = []
        for address in addresses:
            if address.url in forgotten.titles:
                outcome = FetchOutcome(FORGOTTEN)
            elif address.status:
                outcome = FetchOutcome(address.status)
            else:
                outcome = known.get(address.url) or fetcher.fetch(address.url)
            rows.append(_row(address, outcome))
            progress.advance()
        log.info("%d of %d pictures are there, %d new", _num_ok(rows), len(rows), fetcher.num_fetched)
        result = publish_catalogue(
            run,
            sorted(rows, key=lambda row: row.title),
            clock=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            # A picture that left the list may still be at its address.
            current_titles=lambda titles: {title: title for title in titles},
            fetched=fetcher.num_fetched > 0,
        )
    journal.clear()
    return result


def _num_ok(rows: list[CatalogueRow]) -> int:
    return sum(row.status == OK for row in rows)


def _rows_before(lake: Lake) -> Iterator[CatalogueRow]:
    newest = latest(lake, STAGE)
    if newest is None:
        return
    try:
        yield from catalogue_rows(read_catalogue(lake, newest))
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("pictures of earlier runs are fetched again, as their catalogue cannot be read: %s", error)


def _known(lake: Lake, source: Source) -> dict[str, FetchOutcome]:
    """Address -> its outcome in an earlier run, if the original is still there or another try would be in vain."""
    sizes = lake.sizes("originals")

    def is_settled(row: CatalogueRow) -> bool:
        if row.status == OK:
            return sizes.get(original_name(row.sha1, row.mime)) == row.bytes
        if source.allow_private_addresses and PRIVATE in row.status:
            return False
        return row.status in (NO_AI, NOT_AN_IMAGE, FORGOTTEN) or row.status.startswith("address-refused")

    return {
        row.url: FetchOutcome(row.status, row.sha1, row.bytes, row.mime, row.width, row.height)
        for row in _rows_before(lake)
        if is_settled(row)
    }


def addresses_to_fetch(source: Source, lake: Lake) -> tuple[list[str], int]:
    """Addresses on the list that have to be fetched, and how many addresses the list has. Raises RecipeError."""
    addresses = read_addresses(source.addresses)
    settled = _known(lake, source).keys() | read_forgotten(lake).titles
    return [a.url for a in addresses if not a.status and a.url not in settled], len(addresses)


def without_forgotten(rows: Iterable[CatalogueRow], forgotten: Forgotten) -> list[CatalogueRow]:
    """The rows that a scrape would make with this list of forgotten pictures.

    They have no sha1, size and type, which only fetching a picture tells.
    """
    changes = {"status": FORGOTTEN, "original": None, "sha1": "", "bytes": 0, "mime": "", "width": 0, "height": 0}
    return [row.model_copy(update=changes) if forgotten.covers(row.title, row.sha1) else row for row in rows]


class _Fetcher:
    """Fetches pictures of unknown size and sha1."""

    def __init__(
        self, source: Source, lake: Lake, transport: Transport, journal: Journal, forgotten: Forgotten
    ) -> None:
        self.num_fetched = 0
        self._source, self._lake, self._transport, self._journal = source, lake, transport, journal
        self._forgotten = forgotten
        self._refusals: Counter[str] = Counter()

    def fetch(self, url: str) -> FetchOutcome:
        request = {"address": url}
        recorded = self._journal.find(request)
        if recorded is not None:
            outcome = FetchOutcome(**recorded)
            return FetchOutcome(FORGOTTEN) if outcome.sha1 in self._forgotten.sha1s else outcome
        host = urlsplit(url).netloc
        if self._refusals[host] >= REFUSALS_A_HOST:
            return FetchOutcome("host-refuses")
        outcome = FetchOutcome(CUT_OFF)
        with self._lake.scratch("original") as folder:
            for _ in range(TRIES):
                outcome = self._fetch(url, host, folder / "body")
                if outcome.status != CUT_OFF:
                    break
        if outcome.status != OK:
            log.warning("%s: %s", url, outcome.status)
        self._journal.keep(request, asdict(outcome))
        return outcome

    def _fetch(self, url: str, host: str, into: Path) -> FetchOutcome:
        # Without this, Fandom's CDN sends a WebP that it made of the picture.
        address = f"{url}{'&' if urlsplit(url).query else '?'}format=original" if host.endswith(FANDOMS_CDN) else url
        try:
            with self._transport.listed(address) as response:
                if response.status_code != 200:
                    return FetchOutcome(
                        NOT_FOUND if response.status_code in (404, 410) else f"http-{response.status_code}"
                    )
                self._refusals[host] = 0
                if forbids_training(response.headers.get("X-Robots-Tag", "")):
                    return FetchOutcome(NO_AI)
                body = receive(response, into, self._source.max_file_bytes)
        except AddressRefused as error:
            return FetchOutcome(f"address-refused ({error})")
        except (WikiBlocked, WikiUnreachable) as error:
            self._refusals[host] += 1
            log.info("%s", error)
            return FetchOutcome("refused" if isinstance(error, WikiBlocked) else "unreachable")
        if body.status != OK:
            return FetchOutcome(body.status)
        if body.sha1 in self._forgotten.sha1s:
            return FetchOutcome(FORGOTTEN)
        return self._keep(FetchOutcome(OK, body.sha1, body.num_bytes), into)

    def _keep(self, outcome: FetchOutcome, body: Path) -> FetchOutcome:
        try:
            with Image.open(body) as picture:
                mime = str(Image.MIME.get(str(picture.format), ""))
                width, height = picture.size
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return FetchOutcome(NOT_AN_IMAGE)
        if mime not in self._source.mime_types:
            return FetchOutcome(f"mime-not-wanted ({mime})")
        self._lake.publish(body, original_name(outcome.sha1, mime))
        self.num_fetched += 1
        return replace(outcome, mime=mime, width=width, height=height)


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
