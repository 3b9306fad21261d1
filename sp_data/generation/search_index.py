"""The files of a dataset's search index in the lake: faiss's, as clip-retrieval's `back` reads them.

    indexes/3f2a91bc5d60aabb/       by the digest of the dataset manifest
      image.index  text.index       faiss, a row a picture that can be found: neither dead nor zero nor forgotten
      keys.npy                      (n,) int64: the key of each row, as a number
      index.json                    their sizes, and which pictures were left out; published last
      near.json                     how near is nearly a copy (explain.py)

Small ones are flat, which is exact and made at once; clip-retrieval's `index` (autofaiss) makes the others, and takes
half a minute to tune even a small one. All of it is made again where it is missing. Needs no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.canonical import parse_json
from sp_data.errors import StageError
from sp_data.lake import Lake
from sp_data.runtime.progress import SHOWN
from sp_data.runtime.subprocesses import python_child, tail

log = logging.getLogger(__name__)

INDEXES = "indexes"
FILES = ("image.index", "text.index", "keys.npy")
RECORD = "index.json"
Numbers = npt.NDArray[np.int64]
"""Keys as numbers: 70042 for "000070042"."""
MEMORY = "4G"
"""What an index may take while it is searched; autofaiss compresses the rows where they would take more."""


def index_folder(digest: str) -> str:
    """Where the index of the dataset with this digest lies in the lake."""
    return f"{INDEXES}/{digest[:16]}"


@dataclass(frozen=True, slots=True)
class IndexRows:
    """What an index is made of, a shard at a time."""

    name: str
    """The shard's."""
    numbers: Numbers
    """`(n,)`."""
    image: npt.NDArray[np.floating[Any]]
    """`(n, dim)`; `text` alike."""
    text: npt.NDArray[np.floating[Any]]


def has_index(lake: Lake, digest: str, left_out: str) -> bool:
    """Whether the dataset has an index without the pictures whose digest is `left_out`, its files whole."""
    folder = index_folder(digest)
    try:
        record = parse_json(lake.read_bytes(f"{folder}/{RECORD}"))
    except (FileNotFoundError, ValueError):
        return False
    sizes = lake.sizes_of(f"{folder}/{name}" for name in FILES)
    return bool(record == _record(digest, left_out, [sizes.get(f"{folder}/{name}") for name in FILES]))


def _record(digest: str, left_out: str, num_bytes: list[int | None]) -> dict[str, Any]:
    return {"dataset": digest, "left_out": left_out, "bytes": dict(zip(FILES, num_bytes, strict=True))}


def make_index(lake: Lake, digest: str, left_out: str, shards: Iterable[IndexRows], *, flat: bool) -> None:
    """Make a dataset's index and publish it. `flat`: exact, held in memory whole.

    Raises StageError if there are no rows, or clip-retrieval fails; LakeBusy if another process makes it.
    """
    folder = index_folder(digest)
    with lake.writer(INDEXES), lake.scratch("index") as scratch:
        if has_index(lake, digest, left_out):
            return
        numbers = _flat_index(scratch, shards) if flat else _clip_retrieval_index(scratch, shards)
        if not len(numbers):
            raise StageError(f"dataset {lake.dataset!r} has no picture that can be found: there is nothing to index")
        np.save(scratch / "keys.npy", numbers)
        # A record of before must not stand beside files of now.
        lake.remove(f"{folder}/{RECORD}")
        entries = [lake.publish(scratch / name, f"{folder}/{name}") for name in FILES]
        record = _record(digest, left_out, [entry.bytes for entry in entries])
        lake.write_bytes(f"{folder}/{RECORD}", json.dumps(record).encode() + b"\n")


def _flat_index(folder: Path, shards: Iterable[IndexRows]) -> Numbers:
    """Gives the keys in the order of the rows."""
    import faiss

    indexes: dict[str, Any] = {}
    numbers = []
    for shard in shards:
        for name, rows in (("image.index", shard.image), ("text.index", shard.text)):
            exact = rows.astype(np.float32)
            lengths = np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            indexes.setdefault(name, faiss.IndexFlatIP(rows.shape[1])).add(exact / lengths)
        numbers.append(shard.numbers)
    for name, index in indexes.items():
        faiss.write_index(index, str(folder / name))
    return _concatenated(numbers)


def _clip_retrieval_index(folder: Path, shards: Iterable[IndexRows]) -> Numbers:
    """Gives the keys in the order of the rows."""
    embeddings = folder / "embeddings"
    numbers = _write_embeddings(embeddings, shards)
    if not len(numbers):
        return numbers
    log.info("search: indexing %s pictures, which takes minutes", f"{len(numbers):,}", extra=SHOWN)
    # A child: autofaiss closes this process's log handlers.
    child_log = folder / "index.log"
    worker = "sp_data.generation.search_index_worker"
    with python_child(worker, str(embeddings), str(folder), MEMORY, log=child_log, environment={}) as process:
        process.wait()
    if process.returncode != 0 or not all((folder / name).exists() for name in FILES[:2]):
        raise StageError(f"clip-retrieval cannot index the embeddings (exit {process.returncode}): {tail(child_log)}")
    return numbers


def _write_embeddings(folder: Path, shards: Iterable[IndexRows]) -> Numbers:
    """The rows as clip-retrieval writes them, a file a shard; gives the keys in the order of the rows."""
    numbers = []
    for kind in ("img_emb", "text_emb"):
        (folder / kind).mkdir(parents=True)
    for shard in shards:
        # autofaiss reads no empty file.
        if len(shard.numbers):
            np.save(folder / "img_emb" / f"img_emb_{shard.name}.npy", shard.image)
            np.save(folder / "text_emb" / f"text_emb_{shard.name}.npy", shard.text)
            numbers.append(shard.numbers)
    return _concatenated(numbers)


def _concatenated(numbers: list[Numbers]) -> Numbers:
    return np.concatenate(numbers) if numbers else np.zeros(0, np.int64)


def clip_retrieval_module(name: str) -> Any:
    """clip_retrieval.NAME without the package around it, which imports wandb and the like for five seconds."""
    full_name, package_name = f"clip_retrieval.{name}", "clip_retrieval"
    if full_name in sys.modules or package_name in sys.modules:
        return importlib.import_module(full_name)
    spec = importlib.util.find_spec(package_name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("clip_retrieval is not installed", name=package_name)
    package = ModuleType(package_name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[package_name] = package
    try:
        return importlib.import_module(full_name)
    finally:
        del sys.modules[package_name]


class OpenIndex:
    """An index on this machine; `close` it."""

    def __init__(self, lake: Lake, digest: str) -> None:
        import faiss

        self._stack = contextlib.ExitStack()
        image, text, keys = (self._stack.enter_context(lake.local(f"{index_folder(digest)}/{name}")) for name in FILES)
        self.image = faiss.read_index(str(image))
        self.text = text
        """File of the captions' index, in the same order."""
        self.numbers: Numbers = np.load(keys)
        """The key of each row."""

    def close(self) -> None:
        self._stack.close()

    def candidates(self, queries: npt.NDArray[np.float32], count: int) -> list[Numbers]:
        """For each row of `queries` the keys, as numbers, of about `count` near pictures, in no particular order."""
        _, rows = self.image.search(np.ascontiguousarray(queries), min(count, len(self.numbers)))
        # -1 stands where a compressed index finds no more.
        return [self.numbers[of_query[of_query >= 0]] for of_query in rows]
