"""The lake: where files lie, local and remote alike (any fsspec URL), one folder a dataset.

What is published is whole: it is written under a temporary name and renamed (on a local disk), or put in one piece
(in an object store, where nobody sees an object before it is complete, nor the parts of an upload that was cut).
Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shlex
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict

from sp_data.canonical import sha256_of
from sp_data.lake.disk import disk_errors, left_in, scratch_prefix
from sp_data.lake.local_copies import LocalCopies, sweep_temporary, temporary
from sp_data.errors import LakeError
from sp_data.lake import locks
from sp_data.lake.locks import DATASET, LOCK
from sp_data.lake.object_store import is_s3, open_store, protocols, store_errors

DEFAULT_LAKE = "./lake"
LAKE_VARIABLE = "SP_LAKE"
"""Environment variable that names another lake."""
SCRATCH = ".scratch"
_copies: dict[str, LocalCopies] = {}
"""Root of a remote lake's dataset -> the copies of its files, while this process is the dataset's writer."""

NUM_AT_ONCE = 32
"""Requests under way at a time where many small files are read."""
FEW = 2
"""So many files of one folder are asked for one by one; a listing answers for a thousand."""


class FileEntry(BaseModel):
    """A published file: its path inside the dataset's folder, size and sha256 (hex)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    sha256: str
    timed: bool = False
    """Carries the time of day, or how often a run was stopped, so that equal inputs do not give equal bytes; outside
    every digest."""


class Lake:
    """One dataset's folder below a root such as `./lake`, `s3://bucket/lake` or `memory://lake`."""

    def __init__(self, url: str, dataset: str) -> None:
        """Opens nothing yet. Raises LakeError if the URL's protocol is unknown or its package is missing."""
        if not dataset or dataset.startswith(".") or "/" in dataset or "\\" in dataset:
            raise LakeError(f"dataset name {dataset!r}: expected a plain folder name")
        self.fs, root = open_store(url)
        self.url = url
        self.dataset = dataset
        self.is_local = "file" in protocols(self.fs)
        self.root = str(Path(root).absolute() / dataset) if self.is_local else f"{root.rstrip('/')}/{dataset}"

    def command(self, name: str) -> str:
        """A command on this dataset as a person types it, for an advice: "`sp-data embed southpark`"."""
        usual = os.environ.get(LAKE_VARIABLE, DEFAULT_LAKE)
        elsewhere = "" if self.url == usual else f" --lake {shlex.quote(self.url)}"
        return f"`sp-data {name} {self.dataset}{elsewhere}`"

    def __repr__(self) -> str:
        return f"Lake({self.url!r}, {self.dataset!r})"

    def full(self, path: str) -> str:
        """The filesystem's own name of a path in the dataset. Raises LakeError if it would leave the dataset."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise LakeError(f"path {path!r} leaves the dataset {self.dataset!r}: expected a relative path inside it")
        return f"{self.root}/{path}"

    # Reading

    def exists(self, path: str) -> bool:
        with store_errors(self.fs, self.full(path)):
            return bool(self.fs.exists(self.full(path)))

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if there is none."""
        try:
            with store_errors(self.fs, self.full(path)):
                found = self.fs.info(self.full(path))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def sizes_of(self, paths: Iterable[str]) -> dict[str, int]:
        """Path -> bytes of those of these files that are there; for an object store in few requests, however many."""
        folders: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            folders[path.partition("/")[0]].append(path)
        found: dict[str, int] = {}
        for wanted in folders.values():
            if self.is_local or len(wanted) <= FEW:
                found |= {path: size for path in wanted if (size := self.size(path)) is not None}
            else:
                there = self.sizes(os.path.commonpath([str(PurePosixPath(path).parent) for path in wanted]))
                found |= {path: there[path] for path in wanted if path in there}
        return found

    def open(self, path: str) -> BinaryIO:
        with store_errors(self.fs, self.full(path)):
            return cast(BinaryIO, self.fs.open(self.full(path), "rb"))

    def read_bytes(self, path: str) -> bytes:
        # Without this s3fs asks for the size first, in case it could read parts of a large file side by side.
        how = {"max_concurrency": 1} if is_s3(self.fs) else {}
        with store_errors(self.fs, self.full(path)):
            return bytes(self.fs.cat_file(self.full(path), **how))

    def read_all(self, paths: list[str]) -> Iterator[bytes]:
        """The contents of many small files, in order."""
        with ThreadPoolExecutor(1 if self.is_local else NUM_AT_ONCE) as pool:
            yield from pool.map(self.read_bytes, paths)

    def sha256(self, path: str) -> str:
        with self.local(path) as local, local.open("rb") as stream:
            return sha256_of(stream)

    def entry(self, path: str, *, timed: bool = False) -> FileEntry:
        """The entry of a file that lies in the lake. Raises FileNotFoundError."""
        size = self.size(path)
        if size is None:
            raise FileNotFoundError(self.full(path))
        return FileEntry(path=path, bytes=size, sha256=self.sha256(path), timed=timed)

    def list(self, folder: str) -> list[str]:
        """Paths of the files below a folder, at any depth, sorted. Temporary names are left out."""
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Path -> bytes of every file below a folder, as `list` finds them, in one listing."""
        return {path: size for path, size in self.everything(folder).items() if not is_temporary(path)}

    def everything(self, folder: str) -> dict[str, int]:
        """The same with what has a temporary name: what a killed process did not get to rename, say."""
        with store_errors(self.fs, self.full(folder)):
            found = self.fs.find(self.full(folder), detail=True)
        cut = len(self.fs._strip_protocol(self.root)) + 1
        return {str(name)[cut:]: int(info["size"]) for name, info in found.items()}

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A file of the lake as a file on this machine: itself, or a copy that lives as long as the context; within
        `writer` it is kept for the next who asks. Raises FileNotFoundError."""
        if self.is_local:
            yield Path(self.full(path))
        elif copies := _copies.get(self.root):
            with copies.use(path, lambda into: self._fetch(path, into)) as copy:
                yield copy
        else:
            with temporary("copy") as folder:
                copy = folder / PurePosixPath(path).name
                self._fetch(path, copy)
                yield copy

    def _fetch(self, path: str, into: Path) -> None:
        with disk_errors(str(into)), store_errors(self.fs, self.full(path)):
            self.fs.get_file(self.full(path), str(into))

    # Writing

    def write_bytes(self, path: str, data: bytes, *, durable: bool = False, timed: bool = False) -> FileEntry:
        """Publish `data` at `path`, whole or not at all. `durable`: on the disk, not only in its cache."""
        with self.scratch("write") as folder:
            made = folder / "data"
            with disk_errors(self.full(path)), made.open("wb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            return self.publish(made, path, timed=timed)

    def publish(self, made: Path, path: str, *, timed: bool = False) -> FileEntry:
        """Move a finished local file into the lake, whole or not at all; it is gone from where it was."""
        with made.open("rb") as stream:
            entry = FileEntry(path=path, bytes=made.stat().st_size, sha256=sha256_of(stream), timed=timed)
        target = self.full(path)
        with disk_errors(target):
            if self.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                try:
                    made.replace(target)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    beside = Path(target).with_name(f".{Path(target).name}.{uuid.uuid4().hex}")
                    shutil.copyfile(made, beside)
                    beside.replace(target)
                    made.unlink()
            else:
                locks.check_leases(self.root)
                with store_errors(self.fs, target):
                    self.fs.put_file(str(made), target)
                made.unlink()
                self._forget_copy(path)
        return entry

    def _forget_copy(self, path: str) -> None:
        if copies := _copies.get(self.root):
            copies.forget(path)

    def publish_if_new(self, made: Path, path: str) -> FileEntry:
        """Like `publish`, but a file on a local disk that holds these very bytes already is left alone. On an object
        store nobody can tell, and reading it back to compare costs more than putting it again."""
        if not self.is_local:
            return self.publish(made, path)
        with made.open("rb") as stream:
            digest = sha256_of(stream)
        if self.size(path) == made.stat().st_size and self.sha256(path) == digest:
            made.unlink()
            return self.entry(path)
        return self.publish(made, path)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        if not self.is_local:
            locks.check_leases(self.root)
        with contextlib.suppress(FileNotFoundError), store_errors(self.fs, self.full(path)):
            self.fs.rm_file(self.full(path))
        self._forget_copy(path)

    @contextlib.contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """A fresh local folder, gone afterwards; on the lake's own disk where that is local, so that publishing
        from it is one rename."""
        if not self.is_local:
            with temporary(purpose) as folder, disk_errors(str(folder)):
                yield folder
            return
        parent = Path(self.root) / SCRATCH
        with disk_errors(str(parent)):
            parent.mkdir(parents=True, exist_ok=True)
            # Named by its process, so that a writer can tell what was left from what is in use.
            folder = Path(tempfile.mkdtemp(prefix=scratch_prefix(purpose), dir=parent))
        try:
            with disk_errors(str(folder)):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # One writer

    @contextlib.contextmanager
    def writer(self, part: str = DATASET) -> Iterator[None]:
        """Be the only writer of the dataset, or of another part of its folder (a training's runs, the reports).

        Re-entrant within a thread. What processes that are gone left in the scratch folder is swept. Raises LakeBusy.
        """
        lock = f"{self.root}/{LOCK}" if part == DATASET else f"{self.root}/{LOCK}-{part}"
        shown = f"dataset {self.dataset!r}" if part == DATASET else f"the {part} of dataset {self.dataset!r}"
        shown = f"{shown} in {self.url}"
        with locks.exclusive(lock, shown, lambda: self._acquire(lock, part, shown)):
            yield

    @contextlib.contextmanager
    def _acquire(self, lock: str, part: str, shown: str) -> Iterator[None]:
        if self.is_local:
            with locks.flock(Path(lock), shown):
                for folder in self.left_in_scratch():
                    shutil.rmtree(folder, ignore_errors=True)
                yield
            return
        with contextlib.ExitStack() as stack:
            if is_s3(self.fs):
                stack.enter_context(locks.leased(self.fs, lock, shown))
            sweep_temporary()
            if part == DATASET:
                _copies[self.root] = LocalCopies(stack.enter_context(temporary("copies")))
                stack.callback(_copies.pop, self.root)
            yield

    def left_in_scratch(self) -> tuple[Path, ...]:
        """What processes that are gone left in the scratch folder; the next writer sweeps it."""
        return left_in(Path(self.root) / SCRATCH) if self.is_local else ()


def is_temporary(path: str) -> bool:
    """Whether a file's name says that it is not published."""
    return PurePosixPath(path).name.startswith(".")


def datasets(url: str) -> list[str]:
    """Names of the datasets in a lake: the folders that hold manifests. Raises LakeError."""
    probe = Lake(url, "probe")
    root = probe.root.rsplit("/", 1)[0]
    with store_errors(probe.fs, root):
        try:
            found = probe.fs.ls(root, detail=True)
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # no bucket
                raise
            return []
        folders = [str(item["name"]) for item in found if item["type"] == "directory"]
        return sorted(Path(folder).name for folder in folders if probe.fs.exists(f"{folder}/manifests"))
