"""The lake: where the files are, local or remote (any fsspec URL), one folder per dataset.

A published file is always whole. On a local disk it is written under a temporary name and renamed; in an object store
it is put in one piece, and nobody sees an object before it is complete, nor the parts of an interrupted upload.
Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import stat
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sp_data.canonical import sha256_of
from sp_data.errors import CorruptFile, LakeError
from sp_data.lake import locks
from sp_data.lake.disk import abandoned_in, disk_errors, scratch_prefix
from sp_data.lake.links import Links, files_below
from sp_data.lake.local_copies import LocalCopies, sweep_temporary, temporary
from sp_data.lake.locks import DATASET, LOCK
from sp_data.lake.object_store import is_s3, open_store, protocols, store_errors

DEFAULT_LAKE = "./lake"
LAKE_VARIABLE = "SP_LAKE"
"""Environment variable that names another lake."""
SCRATCH = ".scratch"
_copies: dict[str, LocalCopies] = {}
"""Root of a remote lake's dataset -> copies of its files, while this process is the dataset's writer."""

NUM_AT_ONCE = 32
"""Requests in flight at a time while many small files are read."""
FEW = 2
"""Up to this many files of one folder are asked for one by one; a listing answers for a thousand."""


class FileEntry(BaseModel):
    """A published file: its path inside the dataset's folder, size and sha256 (hex)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int = Field(ge=0, lt=2**63)
    sha256: str

    @field_validator("path")
    @classmethod
    def _is_inside(cls, path: str) -> str:
        if not is_inside(path):
            raise ValueError(f"path {path!r} leaves the dataset")
        return path

    timed: bool = False
    """Contains the time of day, or how often a run was stopped, so that equal inputs do not give equal bytes; left
    out of every digest."""


class Lake:
    """One dataset's folder below a root such as `./lake`, `s3://bucket/lake` or `memory://lake`."""

    def __init__(self, url: str, dataset: str) -> None:
        """Opens nothing yet. Raises LakeError if the URL's protocol is unknown or its package is missing."""
        if not is_dataset_name(dataset):
            raise LakeError(f"dataset name {dataset!r}: expected a plain folder name")
        self.fs, root = open_store(url)
        self.url = url
        self.dataset = dataset
        self.is_local = "file" in protocols(self.fs)
        self.root = str(Path(root).absolute() / dataset) if self.is_local else f"{root.rstrip('/')}/{dataset}"
        self._links = Links(self.root)

    @property
    def is_writable(self) -> bool:
        """False for a local folder that this process may not write, such as a volume that is mounted to be read; of an
        object store it is not known before something is put."""
        return not self.is_local or not Path(self.root).is_dir() or os.access(self.root, os.W_OK)

    def command(self, name: str, options: str = "") -> str:
        """A command on this dataset as a person types it, for an error's advice: "`sp-data embed southpark`"."""
        default_url = os.environ.get(LAKE_VARIABLE, DEFAULT_LAKE)
        lake_option = "" if self.url == default_url else f" --lake {shlex.quote(self.url)}"
        return f"`sp-data {name} {self.dataset}{f' {options}' if options else ''}{lake_option}`"

    def __repr__(self) -> str:
        return f"Lake({self.url!r}, {self.dataset!r})"

    def full(self, path: str) -> str:
        """A path of the dataset as its filesystem names it. Raises LakeError if the path would leave the dataset."""
        parts = PurePosixPath(path).parts
        if not is_inside(path):
            raise LakeError(f"path {path!r} leaves the dataset {self.dataset!r}: expected a relative path inside it")
        if self.is_local and (link := self._links.leading_out(parts)) is not None:
            raise LakeError(
                f"{link} is a link out of dataset {self.dataset!r}: links are not followed; put the files themselves "
                "there, or link the dataset's whole folder"
            )
        return f"{self.root}/{path}"

    # Reading

    def exists(self, path: str) -> bool:
        with store_errors(self.fs, self.full(path)):
            return bool(self.fs.exists(self.full(path)))

    def size(self, path: str) -> int | None:
        """Bytes of a file; None if it does not exist."""
        try:
            with store_errors(self.fs, self.full(path)):
                info = self.fs.info(self.full(path))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def sizes_of(self, paths: Iterable[str]) -> dict[str, int]:
        """Path -> bytes of each of these files that exists; in few requests to an object store, however many files."""
        folders: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            folders[path.partition("/")[0]].append(path)
        sizes: dict[str, int] = {}
        for group in folders.values():
            if self.is_local or len(group) <= FEW:
                sizes |= {path: size for path in group if (size := self.size(path)) is not None}
            else:
                listing = self.sizes(os.path.commonpath([str(PurePosixPath(path).parent) for path in group]))
                sizes |= {path: listing[path] for path in group if path in listing}
        return sizes

    def open(self, path: str) -> BinaryIO:
        with store_errors(self.fs, self.full(path)):
            return cast(BinaryIO, self.fs.open(self.full(path), "rb"))

    def read_bytes(self, path: str, max_bytes: int | None = None) -> bytes:
        """A whole file. Raises CorruptFile for a pipe, a device, or on a disk more than `max_bytes`."""
        if self.is_local:
            self._check_is_file(path, max_bytes)
        # Without this s3fs asks for the size first, to see whether it could read parts of a large file in parallel.
        options = {"max_concurrency": 1} if is_s3(self.fs) else {}
        with store_errors(self.fs, self.full(path)):
            return bytes(self.fs.cat_file(self.full(path), **options))

    def _check_is_file(self, path: str, max_bytes: int | None = None) -> None:
        """A pipe in a folder that a stranger made would be waited for for ever."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = Path(self.full(path)).stat()
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise CorruptFile(f"{self.full(path)} is not a file but a pipe, a socket or a device; remove it")
            if max_bytes is not None and status.st_size > max_bytes:
                raise CorruptFile(
                    f"{self.full(path)} has {status.st_size:,} bytes: expected at most {max_bytes:,}; remove it"
                )

    def read_all(self, paths: list[str]) -> Iterator[bytes]:
        """The contents of many small files, in order."""
        with ThreadPoolExecutor(1 if self.is_local else NUM_AT_ONCE) as pool:
            yield from pool.map(self.read_bytes, paths)

    def sha256(self, path: str) -> str:
        with self.local(path) as local, local.open("rb") as stream:
            return sha256_of(stream)

    def entry(self, path: str, *, timed: bool = False) -> FileEntry:
        """The entry of a file in the lake. Raises FileNotFoundError."""
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
        """Like `sizes`, with files under temporary names too, such as those of a process killed before the rename.

        '' is the dataset's whole folder. Links are no files of the lake: they are neither listed nor followed."""
        place = self.full(folder) if folder else self.root
        if self.is_local:
            return dict(files_below(Path(place), folder))
        with store_errors(self.fs, place):
            infos = self.fs.find(place, detail=True)
        prefix_length = len(self.fs._strip_protocol(self.root)) + 1
        return {str(name)[prefix_length:]: int(info["size"]) for name, info in infos.items()}

    def subfolders(self, folder: str) -> tuple[str, ...]:
        """Paths of the folders right below a folder, sorted; none if it is not there."""
        try:
            with store_errors(self.fs, self.full(folder)):
                infos = self.fs.ls(self.full(folder), detail=True)
        except FileNotFoundError:
            return ()
        names = sorted(Path(info["name"]).name for info in infos if info["type"] == "directory")
        return tuple(f"{folder}/{name}" for name in names)

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A file of the lake as a file on this machine: the file itself, or a copy that lasts as long as the context;
        within `writer` the copy is kept for the next caller. Raises FileNotFoundError."""
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
        """Publish `data` at `path`, whole or not at all. `durable`: flushed to the disk, not only to its cache."""
        with self.scratch("write") as folder:
            file = folder / "data"
            with disk_errors(self.full(path)), file.open("wb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            return self.publish(file, path, timed=timed)

    def publish(self, file: Path, path: str, *, timed: bool = False) -> FileEntry:
        """Move a finished local file into the lake, whole or not at all; the local file is gone afterwards."""
        with file.open("rb") as stream:
            entry = FileEntry(path=path, bytes=file.stat().st_size, sha256=sha256_of(stream), timed=timed)
        target = self.full(path)
        with disk_errors(target):
            if self.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                try:
                    file.replace(target)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    unfinished = Path(target).with_name(f".{Path(target).name}.{uuid.uuid4().hex}")
                    shutil.copyfile(file, unfinished)
                    unfinished.replace(target)
                    file.unlink()
            else:
                locks.check_leases(self.root)
                with store_errors(self.fs, target):
                    self.fs.put_file(str(file), target)
                file.unlink()
                self._forget_copy(path)
        return entry

    def _forget_copy(self, path: str) -> None:
        if copies := _copies.get(self.root):
            copies.forget(path)

    def publish_if_new(self, file: Path, path: str) -> FileEntry:
        """Like `publish`, but a file on a local disk that already holds these very bytes is left alone. On an object
        store, comparing means reading the file back, which costs more than putting it again."""
        if not self.is_local:
            return self.publish(file, path)
        with file.open("rb") as stream:
            digest = sha256_of(stream)
        if self.size(path) == file.stat().st_size and self.sha256(path) == digest:
            file.unlink()
            return self.entry(path)
        return self.publish(file, path)

    def remove(self, path: str) -> None:
        """Remove a file; a missing file is fine."""
        if not self.is_local:
            locks.check_leases(self.root)
        target = self.full(path)
        with contextlib.suppress(FileNotFoundError), disk_errors(target), store_errors(self.fs, target):
            self.fs.rm_file(target)
        self._forget_copy(path)

    @contextlib.contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """A fresh local folder, removed afterwards; on the lake's own disk if that is local, so that publishing from
        it is one rename."""
        if not self.is_local:
            with temporary(purpose) as folder, disk_errors(str(folder)):
                yield folder
            return
        parent = Path(self.full(SCRATCH))
        with disk_errors(str(parent)):
            parent.mkdir(parents=True, exist_ok=True)
            # Named by its process, so that a writer can tell abandoned folders from those in use.
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

        Re-entrant within a thread. Scratch folders of processes that are gone are removed. Raises LakeBusy.
        """
        lock = self.full(LOCK if part == DATASET else f"{LOCK}-{part}")
        shown = f"dataset {self.dataset!r}" if part == DATASET else f"the {part} of dataset {self.dataset!r}"
        shown = f"{shown} in {self.url}"
        with locks.exclusive(lock, shown, lambda: self._acquire(lock, part, shown)):
            yield

    @contextlib.contextmanager
    def _acquire(self, lock: str, part: str, shown: str) -> Iterator[None]:
        if self.is_local:
            with locks.flock(Path(lock), shown):
                for folder in self.abandoned_scratch():
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

    def abandoned_scratch(self) -> tuple[Path, ...]:
        """Scratch folders of processes that are gone; the next writer removes them."""
        return abandoned_in(Path(self.full(SCRATCH))) if self.is_local else ()


def is_inside(path: str) -> bool:
    """Whether a path names something in the dataset's folder."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path


def is_dataset_name(name: str) -> bool:
    """Whether a dataset can have this name: that of a plain folder."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\\" not in name


def is_temporary(path: str) -> bool:
    """Whether a file's name marks it as not published."""
    return PurePosixPath(path).name.startswith(".")


def datasets(url: str) -> list[str]:
    """Names of the datasets in a lake: the folders that hold manifests. Raises LakeError."""
    probe = Lake(url, "probe")
    root = probe.root.rsplit("/", 1)[0]
    with store_errors(probe.fs, root):
        try:
            items = probe.fs.ls(root, detail=True)
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # the bucket is missing
                raise
            return []
        folders = [str(item["name"]) for item in items if item["type"] == "directory"]
        return sorted(Path(folder).name for folder in folders if probe.fs.exists(f"{folder}/manifests"))
