"""One writer at a time: a process that writes a dataset, or another part of its folder, holds its lock.

On a local disk the lock is the kernel's (flock): it is released when its process ends, however that ends. On S3 it is a
lease (lease.py). Within a process one thread holds the lock, and may take it again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec

from sp_data.errors import LakeBusy
from sp_data.lake.disk import disk_errors
from sp_data.lake.lease import Lease, held

LOCK = ".writer"
DATASET = "dataset"
"""The part that `Lake.writer` locks by default."""

_holders: dict[str, int] = {}
"""Lock file -> the thread of this process that holds it."""
_holders_guard = threading.Lock()
_leases: dict[str, Lease] = {}
"""Lock file on an object store -> this process's lease."""


class _Entered(threading.local):
    """The locks that this thread holds."""

    def __init__(self) -> None:
        self.locks: set[str] = set()


_entered = _Entered()


@contextlib.contextmanager
def exclusive(lock: str, shown: str, acquire: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Hold a lock; unless this thread has it already, `acquire` takes it on the disk or store. Raises LakeBusy."""
    this_thread = threading.get_ident()
    with _holders_guard:
        holder = _holders.setdefault(lock, this_thread)
    if holder != this_thread:
        raise LakeBusy(f"{shown} is being written by another thread of this process; wait for it to end")
    if lock in _entered.locks:
        yield
        return
    _entered.locks.add(lock)
    try:
        with acquire():
            yield
    finally:
        _entered.locks.remove(lock)
        with _holders_guard:
            del _holders[lock]


TRIES, BETWEEN_TRIES_S = 5, 0.1
"""A process that was killed just when it started another leaves its lock to that one for a moment."""


@contextlib.contextmanager
def flock(lock: Path, shown: str) -> Iterator[None]:
    """The kernel's lock on a local file. Raises LakeBusy naming the process that holds it.

    In a folder that cannot be written nothing is locked."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # An empty file, made once: a stage that finds nothing to do writes nothing at all.
        opened = lock.open("ab")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not lock.parent.is_dir():
            with disk_errors(str(lock)):
                raise
        # Whoever may not write the dataset can still check and read it: what does write says that it cannot.
        yield
        return
    with opened as stream:
        for tries_left in reversed(range(TRIES)):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not tries_left:
                    raise LakeBusy(
                        f"{shown} is being written by {_holder(lock)}; wait for it to end, or use another --lake"
                    ) from error
                time.sleep(BETWEEN_TRIES_S)
        yield


@contextlib.contextmanager
def leased(fs: fsspec.AbstractFileSystem, lock: str, shown: str) -> Iterator[None]:
    """A lease on S3, renewed as long as it is held. Raises LakeBusy."""
    with held(fs, lock, shown) as lease:
        _leases[lock] = lease
        try:
            yield
        finally:
            del _leases[lock]


def check_leases(root: str) -> None:
    """Check, before a write, that this process still holds its leases below a dataset's root. Raises LakeBusy."""
    for lock, lease in list(_leases.items()):
        if lock == f"{root}/{LOCK}" or lock.startswith(f"{root}/{LOCK}-"):
            lease.check()


def _holder(lock: Path) -> str:
    """The process that holds a lock, by the kernel's list; on a shared disk it may run on another machine."""
    locks = Path("/proc/locks")
    for line in locks.read_text().splitlines() if locks.exists() else ():
        # "1: FLOCK  ADVISORY  WRITE 4711 08:01:131074 0 EOF"
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(lock.stat().st_ino) and int(fields[4]) > 0:
            return f"process {fields[4]} on this machine"
    return "another process"
