"""One writer on an object store, where no kernel keeps a lock: a lease that lapses unless it is renewed.

    <dataset>/.writer      {"token": "9c1f…", "beat": 4, "pid": 71, "host": "ada", "place": "<boot> <pid namespace>"}

It is put only where there is none (If-None-Match), and renewed or taken over only as it was read (If-Match), so of two
that try at once one is refused by the store. It is stale once it was not renewed for `LASTS_S`, by the store's own
clock; on the machine that its holder ran on, as soon as that process is gone.

A store ends the request of a client that died in the midst of it, perhaps after the next holder began. It finds nothing
half written by that, and most paths of a lake have one content only. One that is written anew, such as latest.json, may
for those seconds go back to what the dead process said, which is whole too: a snapshot that was published.
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

from sp_data.errors import LakeBusy, LakeError
from sp_data.lake.object_store import refused_condition, store_errors

log = logging.getLogger(__name__)

LASTS_S = 60.0
RENEWED_S = 15.0


@dataclass(frozen=True, slots=True)
class OtherLease:
    """Another's lease: what it says, its version, and how long ago it was renewed."""

    says: dict[str, Any]
    etag: str
    age_s: float

    @property
    def is_stale(self) -> bool:
        # One that says nothing is the lock file of a lake on a disk, which was copied to the store with the rest.
        return not self.says or self.age_s > LASTS_S or _is_gone(self.says)

    def __str__(self) -> str:
        who = f"process {self.says.get('pid', '?')} on {self.says.get('host', 'another machine')}"
        heard = f"last heard of {max(self.age_s, 0):.0f} s ago"
        return f"{who} ({heard}; if it was killed, its lock lapses after {LASTS_S:.0f} s)"


class Lease:
    """Held by this process from `take` to `let_go`, renewed by a thread of its own."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, what: str) -> None:
        self._fs, self._path, self._what = fs, path, what
        self._says = {"token": uuid.uuid4().hex, "pid": os.getpid(), "host": socket.gethostname(), "place": place()}
        self._beat = 0
        self._etag = ""
        self._renewed = _now()
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)

    def take(self) -> None:
        """Raises LakeBusy if another holds it, LakeError."""
        with store_errors(self._fs, self._path):
            if not self._put(IfNoneMatch="*"):
                found = self._look()
                if found is None:  # gone by now
                    taken = self._put(IfNoneMatch="*")
                else:
                    taken = self._is_ours() or (found.is_stale and self._take_over(found))
                if not taken:
                    raise LakeBusy(f"{self._what} is being written by {found or 'another process'}; wait for it to end")
        self._thread.start()

    def let_go(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_held:
            with store_errors(self._fs, self._path), contextlib.suppress(FileNotFoundError):
                self._fs.call_s3("delete_object", **self._object)

    def check(self) -> None:
        """Raises LakeBusy if this process was silent for so long that another may have taken over."""
        if not self._is_held:
            raise LakeBusy(
                f"{self._what}: this process could not renew its lock for {LASTS_S:.0f} s, so another may be writing; "
                "run the same command again"
            )

    @property
    def _is_held(self) -> bool:
        return not self._lost and _now() - self._renewed <= LASTS_S

    @property
    def _object(self) -> dict[str, str]:
        bucket, _, key = self._path.partition("/")
        return {"Bucket": bucket, "Key": key}

    def _take_over(self, found: OtherLease) -> bool:
        log.warning("the lock of %s is taken over from %s", self._what, found)
        return self._put(IfMatch=found.etag)

    def _put(self, **condition: str) -> bool:
        """Whether the store let us. Each beat is another version, or If-Match would not tell them apart."""
        begun = _now()
        self._beat += 1
        body = json.dumps({**self._says, "beat": self._beat}).encode()
        try:
            answer = self._fs.call_s3("put_object", **self._object, Body=body, **condition)
        except OSError as error:
            if refused_condition(error):
                return False
            raise
        self._etag, self._renewed = str(answer["ETag"]), begun
        return True

    def _look(self) -> OtherLease | None:
        """The lease as it lies there; its age is between two times that the store itself gives."""
        try:
            head = self._fs.call_s3("head_object", **self._object)
            body = self._fs.cat_file(self._path)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        try:
            says = json.loads(body)
        except ValueError:
            says = {}
        age_s = (now - head["LastModified"]).total_seconds()
        return OtherLease(says if isinstance(says, dict) else {}, str(head["ETag"]), age_s)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEWED_S):
            try:
                with store_errors(self._fs, self._path):
                    if not self._put(IfMatch=self._etag) and not self._is_ours():
                        self._lost = True
                        return
            except LakeError as error:
                # The next beat may come through; `check` counts the seconds.
                log.warning("%s", error)

    def _is_ours(self) -> bool:
        # A put whose answer was lost on the way is sent again, and then meets its own first try.
        found = self._look()
        if found is None or found.says.get("token") != self._says["token"]:
            return False
        self._etag = found.etag
        return True


@contextlib.contextmanager
def held(fs: fsspec.AbstractFileSystem, path: str, what: str) -> Iterator[Lease]:
    """Hold the lease as long as the context. Raises LakeBusy, LakeError."""
    lease = Lease(fs, path, what)
    lease.take()
    try:
        yield lease
    finally:
        lease.let_go()


def _now() -> float:
    # Unlike the monotonic clock it goes on while the machine sleeps, as the store's does.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def place() -> str:
    """Names what process numbers mean here: this machine since it started, and the container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return ""
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _is_gone(says: dict[str, Any]) -> bool:
    here = place()
    return bool(here) and says.get("place") == here and not Path(f"/proc/{says.get('pid')}").exists()
