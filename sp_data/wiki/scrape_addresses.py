"""The scrape stage for a list of addresses (addresses.py): one request a picture, none for what is there already.

Nothing says beforehand what its bytes should be, so what came is what counts: it must be a picture of a wanted type. An
address is fetched once; a new picture needs a new address. A host that refuses is left alone, the others are not.
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
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import RobotsCache, forbids_training
from sp_data.wiki.http.transport import AddressRefused, Transport
from sp_data.wiki.originals import CUT_OFF, NO_AI, NOT_FOUND, TRIES, original_name, receive
from sp_data.wiki.parse.titles import cleaned_name, normal_name
from sp_data.wiki.publish import STAGE, publish_catalogue

log = logging.getLogger(__name__)

NOT_AN_IMAGE = "not-an-image"
REFUSALS_A_HOST = 3
"""After so many refusals in a row a host is left alone for this run."""
FANDOMS_CDN = "nocookie.net"


@dataclass(frozen=True, slots=True)
class Got:
    """What came from an address: `status` 'ok', or the reason why nothing is kept."""

    status: str
    sha1: str = ""
    bytes: int = 0
    mime: str = ""
    width: int = 0
    height: int = 0


def scrape_addresses(run: StageRun, *, proxy: str | None, robots: RobotsCache) -> StageResult:
    """Fetch what is new on the list and publish its catalogue. Raises RecipeError, LakeError."""
    source, lake, progress = run.recipe.source, run.lake, run.progress
    listed = read_addresses(source.addresses)
    forgotten = read_forgotten(lake)
    known = _known(lake)
    journal = Journal(lake)
    journal.begin(digest_of(["addresses", source.addresses]))
    with Transport(source, proxy, robots) as transport:
        fetcher = _Fetcher(source, lake, transport, journal, forgotten)
        progress.begin(STAGE, len(listed), "pictures")
        rows = []
        for address in listed:
            if address.url in forgotten.titles:
                got = Got(FORGOTTEN)
            elif address.status:
                got = Got(address.status)
            else:
                got = known.get(address.url) or fetcher.fetch(address.url)
            rows.append(_row(address, got))
            progress.advance()
        log.info("%d of %d pictures are there, %d new", _num_ok(rows), len(rows), fetcher.num_fetched)
        result = publish_catalogue(
            run,
            sorted(rows, key=lambda row: row.title),
            clock=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            # What is off the list may well be where it was.
            whereabouts=lambda titles: {title: title for title in titles},
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
        log.warning("what was fetched before is not known: %s", error)


def _known(lake: Lake) -> dict[str, Got]:
    """Address -> what came from it in an earlier run and is still there, or why nothing will."""
    there = lake.sizes("originals")

    def stands(row: CatalogueRow) -> bool:
        if row.status == OK:
            return there.get(original_name(row.sha1, row.mime)) == row.bytes
        return row.status in (NO_AI, NOT_AN_IMAGE, FORGOTTEN) or row.status.startswith("address-refused")

    return {
        row.url: Got(row.status, row.sha1, row.bytes, row.mime, row.width, row.height)
        for row in _rows_before(lake)
        if stands(row)
    }


def addresses_to_fetch(source: Source, lake: Lake) -> tuple[list[str], int]:
    """Addresses on the list whose pictures are not there yet, and how many lines it has. Raises RecipeError."""
    listed = read_addresses(source.addresses)
    done = _known(lake).keys() | read_forgotten(lake).titles
    return [address.url for address in listed if not address.status and address.url not in done], len(listed)


def without_forgotten(rows: Iterable[CatalogueRow], forgotten: Forgotten) -> list[CatalogueRow]:
    """The rows that a scrape would make with this list, which says nothing of bytes that it did not fetch."""
    nothing = {"status": FORGOTTEN, "original": None, "sha1": "", "bytes": 0, "mime": "", "width": 0, "height": 0}
    return [row.model_copy(update=nothing) if forgotten.covers(row.title, row.sha1) else row for row in rows]


class _Fetcher:
    """Fetches pictures whose bytes nobody foretold."""

    def __init__(
        self, source: Source, lake: Lake, transport: Transport, journal: Journal, forgotten: Forgotten
    ) -> None:
        self.num_fetched = 0
        self._source, self._lake, self._transport, self._journal = source, lake, transport, journal
        self._forgotten = forgotten
        self._refusals: Counter[str] = Counter()

    def fetch(self, url: str) -> Got:
        question = {"address": url}
        known = self._journal.find(question)
        if known is not None:
            got = Got(**known)
            return Got(FORGOTTEN) if got.sha1 in self._forgotten.sha1s else got
        host = urlsplit(url).netloc
        if self._refusals[host] >= REFUSALS_A_HOST:
            return Got("host-refuses")
        got = Got(CUT_OFF)
        with self._lake.scratch("original") as folder:
            for _ in range(TRIES):
                got = self._fetch(url, host, folder / "body")
                if got.status != CUT_OFF:
                    break
        if got.status != OK:
            log.warning("%s: %s", url, got.status)
        self._journal.keep(question, asdict(got))
        return got

    def _fetch(self, url: str, host: str, into: Path) -> Got:
        # Fandom's CDN would rather give a WebP that it made.
        asked = f"{url}{'&' if urlsplit(url).query else '?'}format=original" if host.endswith(FANDOMS_CDN) else url
        try:
            with self._transport.listed(asked) as response:
                if response.status_code != 200:
                    return Got(NOT_FOUND if response.status_code in (404, 410) else f"http-{response.status_code}")
                self._refusals[host] = 0
                if forbids_training(response.headers.get("X-Robots-Tag", "")):
                    return Got(NO_AI)
                body = receive(response, into, self._source.max_file_bytes)
        except AddressRefused as error:
            return Got(f"address-refused ({error})")
        except (WikiBlocked, WikiUnreachable) as error:
            self._refusals[host] += 1
            log.info("%s", error)
            return Got("refused" if isinstance(error, WikiBlocked) else "unreachable")
        if body.status != OK:
            return Got(body.status)
        if body.sha1 in self._forgotten.sha1s:
            return Got(FORGOTTEN)
        return self._keep(Got(OK, body.sha1, body.num_bytes), into)

    def _keep(self, got: Got, body: Path) -> Got:
        try:
            with Image.open(body) as picture:
                mime = str(Image.MIME.get(str(picture.format), ""))
                width, height = picture.size
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return Got(NOT_AN_IMAGE)
        if mime not in self._source.mime_types:
            return Got(f"mime-not-wanted ({mime})")
        self._lake.publish(body, original_name(got.sha1, mime))
        self.num_fetched += 1
        return replace(got, mime=mime, width=width, height=height)


def _row(address: Address, got: Got) -> CatalogueRow:
    name = _name(address.url)
    found = [CaptionCandidate(address.caption, "given", address.url)] if address.caption else []
    found.append(CaptionCandidate(cleaned_name(name), "name", address.url))
    return CatalogueRow(
        title=address.url,
        name=name,
        page_id=None,
        url=address.url,
        sha1=got.sha1,
        bytes=got.bytes,
        mime=got.mime,
        width=got.width,
        height=got.height,
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
        captions=tuple(Caption(text=one.text, source=one.source, page=one.page) for one in found),
        caption=shortened(found[0].text),
        variants=(),
        status=got.status,
        original=original_name(got.sha1, got.mime) if got.status == OK else None,
    )


def _name(url: str) -> str:
    """'.../h/hh/Ada_Birch.png/revision/latest?cb=1' -> 'Ada Birch.png'."""
    try:
        path = unquote(urlsplit(url).path).partition("/revision/")[0]
    except ValueError:
        path = ""
    return normal_name(path.rstrip("/").rpartition("/")[2]) or url
