"""One writer on an object store, where no kernel keeps a lock: a lease that expires unless it is renewed.

    <dataset>/.writer      {"token": "9c1f…", "beat": 4, "pid": 71, "host": "ada", "place": "<boot> <pid namespace>"}

The lease is put only if there is none (If-None-Match), and renewed or taken over only if it is still as it was read
(If-Match); so if two processes try at once, the store refuses one of them. A lease is stale when it was not renewed for
`LASTS_S`, by the store's own clock; on its holder's machine, as soon as the holder's process is gone.

A store may finish a request whose client died midway, perhaps after the next holder began. The next holder sees no half
written file, and most paths of a lake only ever have one content. A path that is overwritten, such as latest.json, may
for some seconds go back to what the dead process wrote; that is whole, too: a snapshot that was published.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import fsspec

from sp_data.canonical import parse_json
from sp_data.errors import LakeBusy, LakeError
from sp_data.lake.object_store import refused_condition, store_errors

log = logging.getLogger(__name__)

LASTS_S = 60.0
RENEWED_S = 15.0


@dataclass(frozen=True, slots=True)
class OtherLease:
    """Another process's lease: its content, its version, and how long ago it was renewed."""

    content: dict[str, Any]
    etag: str
    age_s: float

    @property
    def is_stale(self) -> bool:
        # An empty one is the lock file of a local lake, copied to the store with the rest.
        return not self.content or self.age_s > LASTS_S or _is_gone(self.content)

    def __str__(self) -> str:
        holder = f"process {self.content.get('pid', '?')} on {self.content.get('host', 'another machine')}"
        renewed = f"lock renewed {max(self.age_s, 0):.0f} s ago"
        return f"{holder} ({renewed}; if it was killed, its lock expires after {LASTS_S:.0f} s)"


class Lease:
    """A lease that this process holds from `take` to `release`; a thread of its own renews it."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, shown: str) -> None:
        self._fs, self._path, self._shown = fs, path, shown
        self._content = {
            "token": uuid.uuid4().hex,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "place": process_namespace(),
        }
        self._beat = 0
        self._etag = ""
        self._renewed = _now()
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)

    def take(self) -> None:
        """Raises LakeBusy if another process holds the lease, LakeError."""
        with store_errors(self._fs, self._path):
            if not self._put(IfNoneMatch="*"):
                other = self._read()
                if other is None:  # released meanwhile
                    taken = self._put(IfNoneMatch="*")
                else:
                    taken = self._is_ours() or (other.is_stale and self._take_over(other))
                if not taken:
                    raise LakeBusy(
                        f"{self._shown} is being written by {other or 'another process'}; wait for it to end"
                    )
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_held:
            with store_errors(self._fs, self._path), contextlib.suppress(FileNotFoundError):
                self._fs.call_s3("delete_object", **self._object)

    def check(self) -> None:
        """Raises LakeBusy if this process did not renew the lease for so long that another may have taken it over."""
        if not self._is_held:
            raise LakeBusy(
                f"{self._shown}: this process could not renew its lock for {LASTS_S:.0f} s, so another may be writing; "
                "run the same command again"
            )

    @property
    def _is_held(self) -> bool:
        return not self._lost and _now() - self._renewed <= LASTS_S

    @property
    def _object(self) -> dict[str, str]:
        bucket, _, key = self._path.partition("/")
        return {"Bucket": bucket, "Key": key}

    def _take_over(self, other: OtherLease) -> bool:
        log.warning("taking over the lock of %s from %s", self._shown, other)
        return self._put(IfMatch=other.etag)

    def _put(self, **condition: str) -> bool:
        """Whether the store accepted the lease. `beat` makes each put differ: If-Match cannot tell equal ones apart."""
        begun = _now()
        self._beat += 1
        body = json.dumps({**self._content, "beat": self._beat}).encode()
        try:
            answer = self._fs.call_s3("put_object", **self._object, Body=body, **condition)
        except OSError as error:
            if refused_condition(error):
                return False
            raise
        self._etag, self._renewed = str(answer["ETag"]), begun
        return True

    def _read(self) -> OtherLease | None:
        """The lease in the store; its age is the difference of two times by the store's own clock."""
        try:
            head = self._fs.call_s3("head_object", **self._object)
            body = self._fs.cat_file(self._path)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        try:
            content = parse_json(body)
        except ValueError:
            content = {}
        age_s = (now - head["LastModified"]).total_seconds()
        return OtherLease(content if isinstance(content, dict) else {}, str(head["ETag"]), age_s)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEWED_S):
            try:
                with store_errors(self._fs, self._path):
                    if not self._put(IfMatch=self._etag) and not self._is_ours():
                        self._lost = True
                        return
            except LakeError as error:
                # The next renewal may succeed; `check` counts the seconds.
                log.warning("%s", error)

    def _is_ours(self) -> bool:
        # A put whose answer was lost is sent again, and then finds what its first try wrote.
        lease = self._read()
        if lease is None or lease.content.get("token") != self._content["token"]:
            return False
        self._etag = lease.etag
        return True


@contextlib.contextmanager
def held(fs: fsspec.AbstractFileSystem, path: str, shown: str) -> Iterator[Lease]:
    """Hold the lease as long as the context. Raises LakeBusy, LakeError."""
    lease = Lease(fs, path, shown)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _now() -> float:
    # Unlike the monotonic clock this one runs on while the machine sleeps, as the store's does.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_namespace() -> str:
    """Names where process numbers are valid: this machine's boot, and the container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return ""
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _is_gone(content: dict[str, Any]) -> bool:
    namespace = process_namespace()
    return bool(namespace) and content.get("place") == namespace and not Path(f"/proc/{content.get('pid')}").exists()
