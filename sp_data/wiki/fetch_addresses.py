"""Fetches pictures of unknown size and sha1 from a list's addresses, one after the other.

    FetchOutcome('ok', sha1='5f0c…', bytes=1143, mime='image/png', width=96, height=64)
    FetchOutcome('not-found')

Each outcome is kept in the journal until the list's catalogue is published: a run of days may be killed anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from sp_data.errors import RobotsForbid, WikiBlocked, WikiError
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.catalogue import OK
from sp_data.wiki.download import receive
from sp_data.wiki.forgotten import FORGOTTEN, Forgotten
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import forbids_training
from sp_data.wiki.http.transport import AddressRefused, Transport
from sp_data.wiki.list_state import Failures
from sp_data.wiki.originals import GONE, TRIES, original_name
from sp_data.wiki.picture_type import is_cut, picture_type
from sp_data.wiki.refusals import (
    A_DAY_S,
    ADDRESS_REFUSED,
    CUT_OFF,
    NEVER_TRIED,
    NO_AI,
    NOT_FOUND,
    REFUSED,
    TOO_SLOW,
    UNREACHABLE,
    HostFailures,
    host_of,
    is_hosts_failure,
)

log = logging.getLogger(__name__)

NOT_AN_IMAGE = "not-an-image"
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


class AddressFetcher:
    """`failures`: of earlier runs, by address; updated in place. `asks_all`: what an interrupted run did not get is
    asked for again."""

    def __init__(
        self,
        source: Source,
        lake: Lake,
        transport: Transport,
        journal: Journal,
        forgotten: Forgotten,
        failures: Failures,
        *,
        asks_all: bool = False,
    ) -> None:
        self.num_fetched = 0
        self.first_error: WikiError | None = None
        """What the first connection failed with that failed."""
        self._source, self._lake, self._transport, self._journal = source, lake, transport, journal
        self._forgotten, self._failures, self._asks_all = forgotten, failures, asks_all
        self._hosts = HostFailures()
        self._sizes = lake.sizes("originals")

    def fetch_all(self, urls: Iterable[str], advance: Callable[[], None]) -> dict[str, FetchOutcome]:
        """Address -> what came from it. Those that failed before come last, so that they hold up no other."""
        outcomes: dict[str, FetchOutcome] = {}
        failed_before = []
        for url in urls:
            recorded = self._recorded(url)
            if recorded is not None:
                outcomes[url] = recorded
                advance()
            elif self._has_failed(url):
                failed_before.append(url)
            else:
                outcomes[url] = self._fetch_and_record(url)
                advance()
        for url in failed_before:
            outcomes[url] = self._fetch_and_record(url)
            advance()
        return outcomes

    def _recorded(self, url: str) -> FetchOutcome | None:
        """The outcome in the unfinished run that this one continues, if it still holds."""
        entry = self._journal.find(_request(url))
        try:
            outcome, at = outcome_of(entry) if entry is not None else (None, 0.0)
        except (TypeError, ValueError, KeyError, AttributeError):
            log.info("what is known of %s cannot be read; it is asked for again", url)
            return None
        if outcome is None:
            return None
        if outcome.sha1 in self._forgotten.sha1s:
            return FetchOutcome(FORGOTTEN)
        if outcome.status == OK:
            is_there = self._sizes.get(original_name(outcome.sha1, outcome.mime)) == outcome.bytes
            return outcome if is_there else None
        # A day later, or if it is the host that failed, another try may find what this one did not.
        is_fresh = 0 <= time.time() - at < A_DAY_S
        if self._asks_all or not is_fresh or is_hosts_failure(outcome.status):
            return None
        self._note(url, outcome.status)
        return outcome

    def _has_failed(self, url: str) -> bool:
        failure = self._failures.get(url)
        return (failure is not None and failure.was_asked) or self._journal.find(_request(url)) is not None

    def _fetch_and_record(self, url: str) -> FetchOutcome:
        host = host_of(url)
        if self._hosts.is_skipped(host):
            self._failures[url] = self._failures.get(url, NEVER_TRIED).left_out()
            return FetchOutcome(self._failures[url].status)
        outcome, error = self._fetch_with_retries(url)
        if outcome.status != OK:
            log.warning("%s: %s%s", url, outcome.status, f" ({error})" if error else "")
        self._journal.keep(_request(url), {**asdict(outcome), "at": time.time()})
        self._note(url, outcome.status)
        is_failure = error is not None or is_hosts_failure(outcome.status)
        # A host that asks to be left alone is asked for nothing else; robots.txt may forbid this address only.
        if isinstance(error, RobotsForbid) or not is_failure:
            return outcome
        if self._hosts.failed(host) or isinstance(error, WikiBlocked):
            log.warning("%s is left alone for the rest of this run", host)
            self._hosts.skip(host)
        return outcome

    def _note(self, url: str, status: str) -> None:
        if status == OK:
            self._failures.pop(url, None)
        else:
            self._failures[url] = self._failures.get(url, NEVER_TRIED).again(status)

    def _fetch_with_retries(self, url: str) -> tuple[FetchOutcome, WikiError | None]:
        outcome = FetchOutcome(CUT_OFF)
        try:
            with self._lake.scratch("original") as folder:
                for _ in range(TRIES):
                    outcome = self._fetch(url, folder / "body")
                    if outcome.status != CUT_OFF:
                        break
        except WikiError as error:
            self.first_error = self.first_error or error
            return FetchOutcome(REFUSED if isinstance(error, WikiBlocked) else UNREACHABLE), error
        return outcome, None

    def _fetch(self, url: str, into: Path) -> FetchOutcome:
        host = host_of(url)
        # Without this, Fandom's CDN sends a WebP that it made of the picture.
        address = f"{url}{'&' if '?' in url else '?'}format=original" if host.endswith(FANDOMS_CDN) else url
        try:
            with self._transport.listed(address) as response:
                code = response.status_code
                if code in GONE:
                    self._hosts.answered(host)
                if code != 200:
                    return FetchOutcome(NOT_FOUND if code in GONE else f"http-{code}")
                if forbids_training(response.headers.get("X-Robots-Tag", "")):
                    self._hosts.answered(host)
                    return FetchOutcome(NO_AI)
                body = receive(response, into, self._source.max_file_bytes)
                if body.status != TOO_SLOW:
                    self._hosts.answered(host)
                has_known_end = _has_known_end(response)
        except AddressRefused as error:
            return FetchOutcome(f"{ADDRESS_REFUSED} ({error})")
        if body.status != OK:
            return FetchOutcome(body.status)
        if body.sha1 in self._forgotten.sha1s:
            return FetchOutcome(FORGOTTEN)
        return self._keep(body.sha1, body.num_bytes, into, has_known_end=has_known_end)

    def _keep(self, sha1: str, num_bytes: int, body: Path, *, has_known_end: bool) -> FetchOutcome:
        kind = picture_type(body)
        if kind is None:
            return FetchOutcome(NOT_AN_IMAGE)
        if kind.mime not in self._source.mime_types:
            return FetchOutcome(f"mime-not-wanted ({kind.mime})")
        if not has_known_end and is_cut(body, kind.mime):
            return FetchOutcome(CUT_OFF)
        path = original_name(sha1, kind.mime)
        self._lake.publish(body, path)
        self._sizes[path] = num_bytes
        self.num_fetched += 1
        return FetchOutcome(OK, sha1, num_bytes, kind.mime, kind.width, kind.height)


def _request(url: str) -> dict[str, str]:
    return {"address": url}


def outcome_of(entry: dict[str, Any]) -> tuple[FetchOutcome, float]:
    """The outcome in a journal's entry, and when it was written (seconds since 1970; 0 if that is not known)."""
    return FetchOutcome(**{name: value for name, value in entry.items() if name != "at"}), float(entry.get("at", 0.0))


def _has_known_end(response: requests.Response) -> bool:
    """Whether HTTP says where the body ends: otherwise one that breaks off looks whole."""
    headers = response.headers
    return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()
