"""The pictures' original bytes: each fetched once, checked against the wiki's size and sha1, kept by sha1.

    originals/5f/5f0c….png                     whole and checked
    quarantine/sha1-mismatch-5f0c….png         came whole, but with another size or sha1; kept for inspection

A failure of one picture is a reason in its row, and it is asked for again as refusals.py says. A host that fails again
and again ends the run; the pictures fetched so far stay and are not requested again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sp_data.errors import RobotsForbid, WikiBlocked, WikiError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.wiki.catalogue import OK, read_catalogue
from sp_data.wiki.download import receive
from sp_data.wiki.facts import WikiFile
from sp_data.wiki.forgotten import FORGOTTEN, read_forgotten
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import forbids_training
from sp_data.wiki.http.transport import AddressRefused, blocked, unreachable
from sp_data.wiki.refusals import (
    ADDRESS_REFUSED,
    CUT_OFF,
    FAILURES_IN_A_ROW,
    HIDDEN,
    HOST_REFUSES,
    NEVER_TRIED,
    NO_AI,
    NOT_FOUND,
    REFUSED,
    SHA1_MISMATCH,
    TOO_LARGE,
    TOO_SLOW,
    UNREACHABLE,
    FetchRefusal,
    HostFailures,
    host_of,
    is_hosts_failure,
)
from sp_data.wiki.refusals import RUNS_A_PICTURE as RUNS_A_PICTURE

log = logging.getLogger(__name__)

TRIES = 4
"""How often a picture whose body breaks off is requested."""
GONE = (404, 410)
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


def original_path(file: WikiFile) -> str:
    """'originals/5f/5f0c….png': named by content, so two names with the same bytes share one file."""
    return original_name(file.sha1, file.mime)


def original_name(sha1: str, mime: str) -> str:
    """The same for bytes of this sha1 (hex) and type."""
    return f"originals/{sha1[:2]}/{sha1}{EXTENSIONS.get(mime, '.bin')}"


class Originals:
    """Fetches pictures into a lake, one after the other.

    `refused`: `_key` of a picture -> why earlier runs could not fetch it; updated in place. `usual_host`: the host of
    nearly all pictures. If it fails again and again, the run ends; another host that does is skipped.
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
        self.first_error: WikiError | None = None
        """What the first picture's connection failed with that failed."""
        self._client = client
        self._lake = lake
        self._journal = journal
        self._usual_host = usual_host
        self._hosts = HostFailures()
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
            # A file with the same bytes may have brought it.
            self.refused.pop(_key(file), None)
            return OK
        refusal = self.refused.get(_key(file))
        return refusal.status if refusal and not refusal.is_due(time.time()) else None

    def in_order(self, files: Iterable[WikiFile]) -> list[WikiFile]:
        """The order in which to fetch these: those that failed before come last, so that they hold up no other."""
        return sorted(files, key=lambda file: (self._failed_before(file), file.name))

    def forget_others(self, files: Iterable[WikiFile]) -> None:
        """Discard the refusals of pictures that are not among these: the wiki has them no more."""
        current = {_key(file) for file in files}
        for key in self.refused.keys() - current:
            del self.refused[key]

    def ensure(self, file: WikiFile) -> str:
        """Fetch the original unless it is in the lake: 'ok', or the reason why it is not there.

        Raises WikiBlocked, WikiUnreachable if the usual host is at fault.
        """
        status = self.outcome(file)
        if status is not None:
            return status
        request = {"picture": _key(file)}
        recorded = self._journal.find(request) if self._journal else None
        # A host may have recovered since the interrupted run.
        if recorded is not None and not is_hosts_failure(str(recorded)):
            return self._refuse(file, str(recorded))
        failed_before = self._failed_before(file)
        host = host_of(file.url)
        if self._hosts.is_skipped(host):
            self.refused[_key(file)] = self.refused.get(_key(file), NEVER_TRIED).left_out()
            return self.refused[_key(file)].status
        status, error = self._fetch_with_retries(file)
        if status == OK:
            self.refused.pop(_key(file), None)
            return OK
        log.warning("%s: %s%s", file.title, status, f" ({error})" if error else "")
        if self._journal:
            self._journal.keep(request, status)
        if self._is_at_fault(host, status, error):
            # Pictures that failed before come last: that they fail again says nothing new about the host.
            if self._is_usual(host) and not failed_before:
                raise error or _failure_of(file.url, status)
            self._hosts.skip(host)
        return self._refuse(file, status)

    def _is_usual(self, host: str) -> bool:
        return self._usual_host in (None, host)

    def _failed_before(self, file: WikiFile) -> bool:
        refusal = self.refused.get(_key(file))
        if refusal is not None and refusal.was_asked:
            return True
        return self._journal is not None and self._journal.find({"picture": _key(file)}) is not None

    def _refuse(self, file: WikiFile, status: str) -> str:
        self.refused[_key(file)] = self.refused.get(_key(file), NEVER_TRIED).again(status)
        return status

    def _is_at_fault(self, host: str, status: str, error: WikiError | None) -> bool:
        """Whether the host is at fault, and not this picture alone."""
        if isinstance(error, RobotsForbid) or (error is None and not is_hosts_failure(status)):
            return False
        # A host that asks to be left alone is asked for no other picture.
        return self._hosts.failed(host) or isinstance(error, WikiBlocked)

    def _fetch_with_retries(self, file: WikiFile) -> tuple[str, WikiError | None]:
        """Fetch the original. The status, and how the connection failed if it did."""
        status = CUT_OFF
        try:
            with self._lake.scratch("original") as folder:
                for _ in range(TRIES):
                    status = self._fetch(file, folder / "body")
                    if status != CUT_OFF:
                        break
        except WikiError as error:
            self.first_error = self.first_error or error
            if not self._is_usual(host_of(file.url)):
                return HOST_REFUSES, error
            return REFUSED if isinstance(error, WikiBlocked) else UNREACHABLE, error
        return status, None

    def _fetch(self, file: WikiFile, into: Path) -> str:
        host = host_of(file.url)
        try:
            with self._client.transport.original(file.url) as response:
                code = response.status_code
                if code in GONE:
                    self._hosts.answered(host)
                if code != 200:
                    return NOT_FOUND if code in GONE else f"http-{code}"
                if forbids_training(response.headers.get("X-Robots-Tag", "")):
                    self._hosts.answered(host)
                    return NO_AI
                body = receive(response, into, self._client.source.max_file_bytes)
                if body.status != TOO_SLOW:
                    self._hosts.answered(host)
        except AddressRefused as error:
            return f"{ADDRESS_REFUSED} ({error})"
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


def _failure_of(url: str, status: str) -> WikiError:
    """The error of a host that answers with this status, 'http-503', again and again."""
    if status == TOO_SLOW:
        return unreachable(url, f"sends too few bytes a second, for {FAILURES_IN_A_ROW} pictures in a row")
    code = status.removeprefix("http-")
    error_for = unreachable if code.startswith("5") else blocked
    return error_for(url, f"answers HTTP {code} for {FAILURES_IN_A_ROW} pictures in a row")


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
    hosts = Counter(host_of(file.url) for file in files if file.url)
    return max(hosts, key=lambda host: (hosts[host], host), default=None)


def _key(file: WikiFile) -> str:
    return f"{file.sha1} {file.bytes} {file.url}"
