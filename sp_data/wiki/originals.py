"""The pictures' original bytes: each fetched once, checked against the wiki's size and sha1, kept by sha1.

    originals/5f/5f0c….png                     whole and checked
    quarantine/sha1-mismatch-5f0c….png         came whole, but with another size or sha1; kept for inspection

A failure of one picture is a reason in its row. A failure of the wiki ends the run; the pictures fetched so far stay
and are not requested again.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from sp_data.errors import WikiBlocked, WikiUnreachable
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.wiki.catalogue import OK, read_catalogue
from sp_data.wiki.facts import WikiFile
from sp_data.wiki.forgotten import FORGOTTEN, read_forgotten
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import forbids_training
from sp_data.wiki.http.transport import BROKE_OFF, CHUNK_BYTES, AddressRefused, blocked, unreachable

log = logging.getLogger(__name__)

TRIES = 4
"""How often a picture whose body breaks off is requested."""
FAILURES_IN_A_ROW = 5
"""After so many pictures in a row with HTTP 401, 403 or 5xx the host is at fault, and the run ends."""
RUNS_A_PICTURE = 3
"""In how many runs a failing picture is tried; after that only when everything is listed again."""
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "image/avif": ".avif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
}

CUT_OFF = "cut-off"
TOO_LARGE = "too-large"
SHA1_MISMATCH = "sha1-mismatch"
NOT_FOUND = "not-found"
HIDDEN = "hidden"
HOST_REFUSES = "host-refuses"
NO_AI = "noai"
"""The host's X-Robots-Tag forbids training models on it."""


@dataclass(frozen=True, slots=True)
class FetchRefusal:
    """Why a picture was not fetched, and in how many runs it was tried."""

    status: str
    runs: int

    @property
    def is_final(self) -> bool:
        return not may_come(self.status) or self.runs >= RUNS_A_PICTURE


@dataclass(frozen=True, slots=True)
class Body:
    """A received body: its size, its sha1 (hex), and a status: 'ok', 'cut-off' or 'too-large'."""

    num_bytes: int
    sha1: str
    status: str


def original_path(file: WikiFile) -> str:
    """'originals/5f/5f0c….png': named by content, so two names with the same bytes share one file."""
    return original_name(file.sha1, file.mime)


def original_name(sha1: str, mime: str) -> str:
    """The same for bytes of this sha1 (hex) and type."""
    return f"originals/{sha1[:2]}/{sha1}{EXTENSIONS.get(mime, '.bin')}"


class Originals:
    """Fetches pictures into a lake, one after the other.

    `refused`: `_key` of a picture -> why earlier runs could not fetch it; updated in place. `usual_host`: the host of
    nearly all pictures. If it refuses, the run ends; another host that refuses is skipped.
    """

    def __init__(
        self,
        client: WikiClient,
        lake: Lake,
        journal: Journal | None = None,
        refused: dict[str, FetchRefusal] | None = None,
        usual_host: str | None = None,
    ) -> None:
        self.num_fetched = 0
        self.num_bytes = 0
        self.refused = {} if refused is None else refused
        self._client = client
        self._lake = lake
        self._journal = journal
        self._usual_host = usual_host
        self._skipped_hosts: set[str] = set()
        self._failures_in_a_row = 0
        # One listing: a request to an object store for each of many thousand pictures takes minutes.
        self._sizes = lake.sizes("originals")
        self._forgotten = read_forgotten(lake)

    def outcome(self, file: WikiFile) -> str | None:
        """What is known without a request: 'ok' if the original is in the lake, or why it will not come; else None."""
        source = self._client.source
        if self._forgotten.covers(file.title, file.sha1):
            # It is not tried again, so an earlier refusal does not count any more.
            self.refused.pop(_key(file), None)
            return FORGOTTEN
        if file.mime not in source.mime_types:
            return f"mime-not-wanted ({file.mime})"
        if not file.sha1 or not file.url:
            return HIDDEN
        if file.bytes > source.max_file_bytes:
            return TOO_LARGE
        if self._sizes.get(original_path(file)) == file.bytes:
            return OK
        refusal = self.refused.get(_key(file))
        return refusal.status if refusal and refusal.is_final else None

    def ensure(self, file: WikiFile) -> str:
        """Fetch the original unless it is in the lake: 'ok', or the reason why it is not there.

        Raises WikiBlocked, WikiUnreachable.
        """
        status = self.outcome(file)
        if status is not None:
            return status
        request = {"picture": _key(file)}
        if self._journal and (recorded := self._journal.find(request)) is not None:
            return self._refuse(file, str(recorded))
        status = self._fetch_unless_host_refuses(file)
        if status == OK:
            self.refused.pop(_key(file), None)
            return OK
        log.warning("%s: %s", file.title, status)
        if self._journal:
            self._journal.keep(request, status)
        return self._refuse(file, status)

    def _refuse(self, file: WikiFile, status: str) -> str:
        earlier = self.refused.get(_key(file))
        self.refused[_key(file)] = FetchRefusal(status, earlier.runs + 1 if earlier else 1)
        return status

    def _fetch_unless_host_refuses(self, file: WikiFile) -> str:
        """Fetch the original; a host that refuses is skipped from then on, unless it is the usual one."""
        host = _host(file.url)
        if host in self._skipped_hosts:
            return HOST_REFUSES
        try:
            return self._fetch_with_retries(file)
        except (WikiBlocked, WikiUnreachable) as error:
            if self._usual_host in (None, host):
                raise
            log.warning("%s", error)
            self._skipped_hosts.add(host)
            return HOST_REFUSES

    def _fetch_with_retries(self, file: WikiFile) -> str:
        status = CUT_OFF
        with self._lake.scratch("original") as folder:
            for _ in range(TRIES):
                status = self._fetch(file, folder / "body")
                if status != CUT_OFF:
                    break
        return status

    def _fetch(self, file: WikiFile, into: Path) -> str:
        try:
            with self._client.transport.original(file.url) as response:
                if response.status_code != 200:
                    return self._status_of_response(file, response.status_code)
                self._failures_in_a_row = 0
                if forbids_training(response.headers.get("X-Robots-Tag", "")):
                    return NO_AI
                body = receive(response, into, self._client.source.max_file_bytes)
        except AddressRefused as error:
            return f"address-refused ({error})"
        if body.status != OK:
            return body.status
        if (body.num_bytes, body.sha1) != (file.bytes, file.sha1):
            self._lake.publish(into, f"quarantine/{SHA1_MISMATCH}-{Path(original_path(file)).name}")
            return SHA1_MISMATCH
        self._lake.publish(into, original_path(file))
        self._sizes[original_path(file)] = file.bytes
        self.num_fetched += 1
        self.num_bytes += body.num_bytes
        return OK

    def _status_of_response(self, file: WikiFile, status: int) -> str:
        if status in (404, 410):
            self._failures_in_a_row = 0
            return NOT_FOUND
        if status >= 500 or status in (401, 403):
            self._failures_in_a_row += 1
            if self._failures_in_a_row == FAILURES_IN_A_ROW:
                error_for = unreachable if status >= 500 else blocked
                raise error_for(file.url, f"answers HTTP {status} for {FAILURES_IN_A_ROW} pictures in a row")
        return f"http-{status}"


def may_come(status: str) -> bool:
    """Whether another try may fetch a picture with this status."""
    return status in (CUT_OFF, NOT_FOUND, SHA1_MISMATCH, HOST_REFUSES) or status.startswith("http-")


def originals_missing(lake: Lake, manifest: Manifest) -> list[str]:
    """Lake paths of the catalogue's originals that are missing or have another size, sorted. An import has none."""
    if manifest.recipe.get("imported") is not None:
        return []
    table = read_catalogue(lake, manifest).select(["status", "original", "bytes"])
    expected = {row["original"]: row["bytes"] for row in table.to_pylist() if row["status"] == OK}
    sizes = lake.sizes("originals")
    return sorted(path for path, size in expected.items() if sizes.get(path) != size)


def follows_forgotten(lake: Lake, manifest: Manifest) -> bool:
    """Whether a catalogue agrees with the current list of forgotten pictures, which a person may have changed."""
    forgotten = read_forgotten(lake)
    if not forgotten.entries and FORGOTTEN not in manifest.counts.dropped:
        return True
    rows = read_catalogue(lake, manifest).select(["title", "sha1", "status"]).to_pylist()
    return all(forgotten.covers(row["title"], row["sha1"]) is (row["status"] == FORGOTTEN) for row in rows)


def usual_host(files: Iterable[WikiFile]) -> str | None:
    """The host that serves most of these files, None if there are none."""
    hosts = Counter(_host(file.url) for file in files if file.url)
    return max(hosts, key=lambda host: (hosts[host], host), default=None)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _key(file: WikiFile) -> str:
    return f"{file.sha1} {file.bytes} {file.url}"


def receive(response: requests.Response, into: Path, max_bytes: int) -> Body:
    """Write a response's body into a file. Status 'ok', 'cut-off' or 'too-large'; reading stops beyond `max_bytes`."""
    length = response.headers.get("Content-Length", "")
    # Python reads no number of thousands of digits.
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        return Body(0, "", TOO_LARGE)
    hasher, num_bytes = hashlib.sha1(usedforsecurity=False), 0
    with into.open("wb") as stream:
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    return Body(num_bytes, "", TOO_LARGE)
                hasher.update(chunk)
                stream.write(chunk)
        except BROKE_OFF:
            return Body(num_bytes, "", CUT_OFF)
    return Body(num_bytes, hasher.hexdigest(), OK)
