"""Copies of a remote lake's files on this machine, so that a stage fetches a shard once and not for each check.

Their size is bounded: copies not in use are removed, the least recently used first. Copies that a killed process left
are removed by the next process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

MAX_BYTES = 4 * 2**30
PREFIX = "sp-data-"
YOUNG_S = 60.0
"""The process that made a folder this young may not have locked it yet."""


@dataclass(slots=True)
class _Copy:
    folder: Path
    num_users: int = 0
    num_bytes: int = 0
    stale: bool = False
    fetching: threading.Lock = field(default_factory=threading.Lock)


class LocalCopies:
    """Path in the lake -> a file in `folder`."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, path: str, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """A file's copy, fetched if there is none; it stays at least as long as the context."""
        with self._lock:
            copy = self._copies.get(path)
            if copy is None:
                copy = self._copies[path] = _Copy(Path(tempfile.mkdtemp(dir=self._folder)))
            copy.num_users += 1
            self._copies.move_to_end(path)
        file = copy.folder / PurePosixPath(path).name
        try:
            with copy.fetching:
                if not file.exists():
                    unfinished = copy.folder / ".fetched"
                    fetch(unfinished)
                    unfinished.replace(file)
                    with self._lock:
                        copy.num_bytes = file.stat().st_size
                        self._num_bytes += copy.num_bytes
            yield file
        finally:
            with self._lock:
                copy.num_users -= 1
                self._evict(copy)

    def forget(self, path: str) -> None:
        """Drop a file's copy: the file was overwritten or removed."""
        with self._lock:
            copy = self._copies.pop(path, None)
            if copy is not None:
                copy.stale = True
                self._num_bytes -= copy.num_bytes
                self._evict(copy)

    def _evict(self, used: _Copy) -> None:
        if used.stale and not used.num_users:
            shutil.rmtree(used.folder, ignore_errors=True)
        if self._num_bytes <= self._max_bytes:
            return
        for path, copy in list(self._copies.items()):
            if self._num_bytes <= self._max_bytes:
                break
            if not copy.num_users:
                del self._copies[path]
                shutil.rmtree(copy.folder, ignore_errors=True)
                self._num_bytes -= copy.num_bytes


@contextlib.contextmanager
def temporary(purpose: str) -> Iterator[Path]:
    """A fresh folder in the machine's temporary folder ($TMPDIR), removed afterwards; locked, to tell it from those
    that killed processes left."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep_temporary() -> None:
    """Remove temporary folders whose process is gone: the kernel released their locks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            if not folder.is_dir() or folder.is_symlink() or time.time() - folder.stat().st_mtime < YOUNG_S:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
