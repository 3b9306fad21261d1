"""The pictures' original bytes: each fetched once, checked against the wiki's size and sha1, kept by sha1.

    originals/5f/5f0c….png                     whole and checked
    quarantine/sha1-mismatch-5f0c….png         came whole, but is not what the wiki says it is; kept to be looked at

What goes wrong with one picture is a reason in its row. What goes wrong with the wiki ends the run; the pictures that
came before it stay, and are not asked for again.
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
"""How often a picture whose body breaks off is asked for."""
FAILURES_IN_A_ROW = 5
"""After so many pictures in a row with HTTP 401, 403 or 5xx it is not the pictures."""
RUNS_A_PICTURE = 3
"""In how many runs a picture is asked for that does not come; after that only when everything is listed again."""
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
"""Its host says, in X-Robots-Tag, that no model may be trained on it."""


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
    """What came: how many bytes, their sha1 (hex), and whether it ended where it should."""

    num_bytes: int
    sha1: str
    status: str


def original_path(file: WikiFile) -> str:
    """'originals/5f/5f0c….png': by content, so that two names of the same bytes share one file."""
    return original_name(file.sha1, file.mime)


def original_name(sha1: str, mime: str) -> str:
    """The same for bytes of this sha1 (hex) and type."""
    return f"originals/{sha1[:2]}/{sha1}{EXTENSIONS.get(mime, '.bin')}"


class Originals:
    """Fetches pictures into a lake, one after the other.

    `refused`: what became of pictures in earlier runs, by `_key`; brought up to date. `usual_host`: the one that nearly
    all pictures come from. If that refuses, the run ends; another one is left alone.
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
        self._left_alone: set[str] = set()
        self._failures = 0
        # One listing: asking an object store for each of many thousand pictures takes minutes.
        self._there = lake.sizes("originals")
        self._forgotten = read_forgotten(lake)

    def outcome(self, file: WikiFile) -> str | None:
        """What is known of it without asking: 'ok' if it lies in the lake, or the reason why it will not; else None."""
        source = self._client.source
        if self._forgotten.covers(file.title, file.sha1):
            # Whatever it was refused for before, it is not waited for any more.
            self.refused.pop(_key(file), None)
            return FORGOTTEN
        if file.mime not in source.mime_types:
            return f"mime-not-wanted ({file.mime})"
        if not file.sha1 or not file.url:
            return HIDDEN
        if file.bytes > source.max_file_bytes:
            return TOO_LARGE
        if self._there.get(original_path(file)) == file.bytes:
            return OK
        before = self.refused.get(_key(file))
        return before.status if before and before.is_final else None

    def ensure(self, file: WikiFile) -> str:
        """'ok' if the original lies in the lake now, else the reason. Raises WikiBlocked, WikiUnreachable."""
        status = self.outcome(file)
        if status is not None:
            return status
        question = {"picture": _key(file)}
        if self._journal and (known := self._journal.find(question)) is not None:
            return self._refuse(file, str(known))
        status = self._fetch_from_anywhere(file)
        if status == OK:
            self.refused.pop(_key(file), None)
            return OK
        log.warning("%s: %s", file.title, status)
        if self._journal:
            self._journal.keep(question, status)
        return self._refuse(file, status)

    def _refuse(self, file: WikiFile, status: str) -> str:
        before = self.refused.get(_key(file))
        self.refused[_key(file)] = FetchRefusal(status, before.runs + 1 if before else 1)
        return status

    def _fetch_from_anywhere(self, file: WikiFile) -> str:
        """One broken host must not keep the pictures of the others from coming."""
        host = _host(file.url)
        if host in self._left_alone:
            return HOST_REFUSES
        try:
            return self._fetch_whole(file)
        except (WikiBlocked, WikiUnreachable) as error:
            if self._usual_host in (None, host):
                raise
            log.warning("%s", error)
            self._left_alone.add(host)
            return HOST_REFUSES

    def _fetch_whole(self, file: WikiFile) -> str:
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
                    return self._refused(file, response.status_code)
                self._failures = 0
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
        self._there[original_path(file)] = file.bytes
        self.num_fetched += 1
        self.num_bytes += body.num_bytes
        return OK

    def _refused(self, file: WikiFile, status: int) -> str:
        if status in (404, 410):
            self._failures = 0
            return NOT_FOUND
        if status >= 500 or status in (401, 403):
            self._failures += 1
            if self._failures == FAILURES_IN_A_ROW:
                told = unreachable if status >= 500 else blocked
                raise told(file.url, f"answers HTTP {status} for {FAILURES_IN_A_ROW} pictures in a row")
        return f"http-{status}"


def may_come(status: str) -> bool:
    """Whether a picture that could not be fetched may come at another try."""
    return status in (CUT_OFF, NOT_FOUND, SHA1_MISMATCH, HOST_REFUSES) or status.startswith("http-")


def originals_missing(lake: Lake, manifest: Manifest) -> list[str]:
    """Lake paths of the originals that a catalogue counts on and that are gone or of another size, sorted."""
    table = read_catalogue(lake, manifest).select(["status", "original", "bytes"])
    expected = {row["original"]: row["bytes"] for row in table.to_pylist() if row["status"] == OK}
    there = lake.sizes("originals")
    return sorted(path for path, size in expected.items() if there.get(path) != size)


def follows_forgotten(lake: Lake, manifest: Manifest) -> bool:
    """Whether a catalogue was made with the list of what is forgotten as it is now: a person may have changed it."""
    forgotten = read_forgotten(lake)
    if not forgotten.entries and FORGOTTEN not in manifest.counts.dropped:
        return True
    rows = read_catalogue(lake, manifest).select(["title", "sha1", "status"]).to_pylist()
    return all(forgotten.covers(row["title"], row["sha1"]) is (row["status"] == FORGOTTEN) for row in rows)


def usual_host(files: Iterable[WikiFile]) -> str | None:
    """The host that most of these files have their addresses on, None if there are none."""
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
    """Write a response's body into a file; status 'ok', 'cut-off' or 'too-large' (then no more than that is read)."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
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
