"""Search a verified dataset by CLIP vectors: its pictures that lie nearest to words or to another picture.

    with DatasetIndex.open(recipe, lake) as index:
        index.nearest(clip.embed_captions(["a kid in a red coat"]), k=5)

    [[Neighbour(key='000070042', cosine=0.3121, title='File:Jory Frost.png', page='Jory Frost', …), …]]

What has a tombstone, a row of zeros, or was forgotten since the dataset was verified, is never found.

Up to PRODUCT_ROWS pictures each query is multiplied with every row, a shard at a time. Beyond that clip-retrieval's
index (search_index.py) gives candidates, and their cosines are computed from their rows: both ways give equal cosines,
and the index misses a neighbour now and then.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.dataset.loader.open_shard import IndexRecord, OpenShard, ShardFiles, map_rows
from sp_data.dataset.loader.tar_index import index_path, index_tar, read_index, to_npy
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.find import find_samples
from sp_data.dataset.shards.stage import read_columns
from sp_data.errors import DataError, LayoutError, StageError, StageNotDone, UsageError
from sp_data.generation.search_index import IndexRows, Numbers, OpenIndex, has_index, make_index
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Frozen, Manifest
from sp_data.recipe import Recipe
from sp_data.wiki.forgotten import read_forgotten

PRODUCT_ROWS = 200_000
"""Up to so many pictures the exact product is fast enough: 200,000 rows of 768 numbers take 0.8 s on two cores."""
OVERSAMPLED = 8
"""Candidates of the index for each neighbour that is asked for."""
QUERIES_AT_ONCE = 512
OPEN_SHARDS = 16
COLUMNS = ["title", "page", "revision", "licence", "uploader", "url", "caption"]

Way = Literal["auto", "product", "index"]
Rows = npt.NDArray[np.float32]


class Neighbour(Frozen):
    """A picture of the dataset, near to what was searched for."""

    key: str
    tar: str
    """Path in the lake of its shard."""
    cosine: float
    title: str
    page: str
    """Title of the wiki's page that owns the picture; empty if there is none."""
    revision: int | None
    licence: str | None
    uploader: str | None
    url: str
    """The picture's address."""
    caption: str
    split: str


@dataclass(frozen=True, slots=True)
class Hits:
    """For each query the keys of its neighbours, the nearest first, and their cosines: `(n, k)` each. Where a query has
    fewer neighbours the rest are -1 and -inf."""

    numbers: Numbers
    cosines: Rows


class DatasetIndex:
    """The pictures of one verified dataset. Close it, or use it in a `with`; any thread may use it."""

    def __init__(self, verified: Manifest, lake: Lake, way: Way = "auto") -> None:
        """Opens nothing large yet. `way`: the exact product or the index; auto: by the size of the dataset."""
        self.verified, self.lake = verified, lake
        self.dim = int(verified.details["dim"])
        self.layout = KeyLayout.parse(verified.details["layout"])
        self._shards: dict[int, dict[str, Any]] = {shard["number"]: shard for shard in verified.details["shards"]}
        self._forgotten = read_forgotten(lake)
        self._left_out: set[str] = set(verified.details["tombstones"])
        if self._forgotten.entries:
            # Those that the stages have not given a tombstone yet.
            samples = find_samples(lake, verified, self._forgotten.titles, self._forgotten.sha1s)
            self._left_out |= {sample.key for sample in samples if sample.alive}
        self._left_out_rows: defaultdict[int, list[int]] = defaultdict(list)
        for key in self._left_out:
            number, row = self.layout.split(key)
            self._left_out_rows[number].append(row)
        num_samples = sum(int(shard["num_samples"]) for shard in self._shards.values())
        self._is_small = num_samples <= PRODUCT_ROWS
        self.uses_index = way == "index" or (way == "auto" and not self._is_small)
        self._lock = threading.RLock()
        self._index: OpenIndex | None = None
        self._open: OrderedDict[int, tuple[OpenShard, contextlib.ExitStack]] = OrderedDict()
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()

    @classmethod
    def open(cls, recipe: Recipe, lake: Lake, way: Way = "auto") -> DatasetIndex:
        """The newest verified dataset, to be searched with the recipe's CLIP.

        Raises StageNotDone if there is none, StageError if it was embedded by another CLIP than the recipe's.
        """
        verified = manifests.latest(lake, "verify")
        if verified is None:
            raise StageNotDone(
                f"dataset {lake.dataset!r} has no verified dataset yet; run {lake.command('run', '--until verify')}"
            )
        check_clip(verified, clip_folder(identity_fields(recipe)), lake)
        return cls(verified, lake, way)

    def __enter__(self) -> DatasetIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._close_oldest()
            if self._index is not None:
                self._index.close()
                self._index = None

    @property
    def digest(self) -> str:
        return self.verified.digest

    def is_current(self) -> bool:
        """Whether no other dataset was published and no picture was forgotten since this was opened."""
        newest = manifests.latest(self.lake, "verify")
        return newest is not None and newest.digest == self.digest and read_forgotten(self.lake) == self._forgotten

    # Searching

    def nearest(self, embeddings: Rows, k: int, split: str | None = None) -> list[list[Neighbour]]:
        """For each row of `embeddings` `(n, dim)`, unit length, its `k` nearest pictures, the nearest first; fewer if
        there are fewer. `split`: only of train, val or test.

        Raises UsageError for k below 1 or a split that the dataset lacks, DataError for embeddings of another width,
        StageNotDone if a file of the dataset is missing.
        """
        hits = self.hits(embeddings, k, split)
        return [
            self._neighbours(numbers[numbers >= 0], cosines)
            for numbers, cosines in zip(hits.numbers, hits.cosines, strict=True)
        ]

    def hits(self, embeddings: Rows, k: int, split: str | None = None) -> Hits:
        """Keys and cosines of what `nearest` finds, without reading more about them. Raises the same."""
        if k < 1:
            raise UsageError(f"k is {k}: expected at least one neighbour")
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim:
            raise DataError(
                f"embeddings have the shape {embeddings.shape}, dataset {self.lake.dataset!r} expects (n, {self.dim})"
            )
        shards = self._of_split(split)
        queries = embeddings.astype(np.float32)
        blocks = [queries[first : first + QUERIES_AT_ONCE] for first in range(0, len(queries), QUERIES_AT_ONCE)]
        search = self._by_index if self.uses_index else self._by_product
        return _below_each_other([search(block, k, shards) for block in blocks], k)

    def rows(self, split: str | None = None) -> Iterator[tuple[Numbers, Rows]]:
        """The pictures that can be found, a shard at a time: keys `(n,)`, image embeddings `(n, dim)` of unit length.

        Raises StageNotDone if a file is missing, CorruptFile if one is not what the manifest says.
        """
        for shard in self._of_split(split):
            yield self._rows(shard)

    def build(self) -> None:
        """Make the index, unless the lake has it. Raises LakeBusy, StageError."""
        left_out = self._left_out_digest()
        if not has_index(self.lake, self.digest, left_out):
            make_index(self.lake, self.digest, left_out, self._index_rows(), flat=self._is_small)

    def opened_index(self) -> OpenIndex:
        """The index, made first if there is none."""
        with self._lock:
            if self._index is None:
                self.build()
                self._index = OpenIndex(self.lake, self.digest)
            return self._index

    def _of_split(self, split: str | None) -> list[dict[str, Any]]:
        shards = [shard for shard in self._shards.values() if split is None or shard["split"] == split]
        if not shards and split is not None:
            splits = ", ".join(sorted({shard["split"] for shard in self._shards.values()})) or "none"
            raise UsageError(f"dataset {self.lake.dataset!r} has no split {split!r}: it has {splits}")
        return shards

    def _by_product(self, queries: Rows, k: int, shards: list[dict[str, Any]]) -> Hits:
        best = Hits(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32))
        for shard in shards:
            numbers, rows = self._rows(shard)
            if len(numbers):
                best = _joined(best, _greatest(queries @ rows.T, numbers, k), k)
        return _filled(best, k)

    def _by_index(self, queries: Rows, k: int, shards: list[dict[str, Any]]) -> Hits:
        index = self.opened_index()
        wanted = {shard["number"] for shard in shards}
        num_there = len(index.numbers)
        count = k * OVERSAMPLED
        while True:
            candidates = [self._only(numbers, wanted) for numbers in index.candidates(queries, count)]
            if all(len(numbers) >= min(k, num_there) for numbers in candidates):
                break
            if count >= num_there:
                # Of a rare split, or more than a compressed index gives.
                return self._by_product(queries, k, shards)
            count *= OVERSAMPLED
        rows = self._rows_of(np.unique(np.concatenate(candidates)))
        ranked = []
        for query, numbers in zip(queries, candidates, strict=True):
            cosines = query[None] @ np.stack([rows[number] for number in numbers.tolist()]).T
            ranked.append(_filled(_greatest(cosines, numbers, k), k))
        return _below_each_other(ranked, k)

    def _only(self, numbers: Numbers, shards: set[int]) -> Numbers:
        """Those of these shards, ascending."""
        numbers = np.sort(numbers)
        return numbers[np.isin(self.layout.split_numbers(numbers)[0], list(shards))]

    # Rows

    def _rows(self, shard: dict[str, Any]) -> tuple[Numbers, Rows]:
        """Keys and unit rows of the pictures of a shard that can be found."""
        rows, indices = self._findable(shard)
        return self._numbers(shard, indices), _unit(rows[indices])

    def _findable(self, shard: dict[str, Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """A shard's image embeddings, memory-mapped, and which of them can be found."""
        rows = self._mapped(shard, "img_emb")
        is_findable = rows.any(axis=1)
        is_findable[self._left_out_rows.get(shard["number"], [])] = False
        return rows, np.flatnonzero(is_findable)

    def _numbers(self, shard: dict[str, Any], indices: npt.NDArray[np.int64]) -> Numbers:
        numbers: Numbers = int(shard["number"]) * 10**self.layout.index_width + indices
        return numbers

    def _mapped(self, shard: dict[str, Any], kind: str) -> npt.NDArray[Any]:
        shape = (int(shard["num_rows"]), self.dim)
        with self._local(shard[kind]["path"]) as path:
            mapped = map_rows(path, shape, self.lake.command("verify"))
            # A copy of a remote lake's file goes with the context.
            return mapped if self.lake.is_local else np.array(mapped)

    @contextlib.contextmanager
    def _local(self, path: str) -> Iterator[Path]:
        try:
            with self.lake.local(path) as local:
                if not local.exists():
                    raise FileNotFoundError(path)
                yield local
        except FileNotFoundError as error:
            raise StageNotDone(
                f"{self.lake.full(path)} is missing; {self.lake.command('run', '--until verify')} makes it again"
            ) from error

    def _rows_of(self, numbers: Numbers) -> dict[int, Rows]:
        """The unit row of each of these keys."""
        rows: dict[int, Rows] = {}
        for shard, indices in self._by_shard(numbers):
            unit_rows = _unit(self._mapped(shard, "img_emb")[indices])
            rows |= dict(zip(self._numbers(shard, indices).tolist(), unit_rows, strict=True))
        return rows

    def _by_shard(self, numbers: Numbers) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.int64]]]:
        """Keys as (shard, indices in it)."""
        shards, indices = self.layout.split_numbers(numbers)
        for shard in np.unique(shards).tolist():
            yield self._shards[shard], indices[shards == shard]

    def _index_rows(self) -> Iterator[IndexRows]:
        for shard in self._shards.values():
            image, indices = self._findable(shard)
            text = self._mapped(shard, "text_emb")
            name = self.layout.shard_name(shard["number"])
            yield IndexRows(name, self._numbers(shard, indices), image[indices], text[indices])

    def _left_out_digest(self) -> str:
        return digest_of(sorted(self._left_out))

    # What else is known of a picture

    def neighbour(self, number: int, cosine: float) -> Neighbour:
        """What is known of the picture with this key, as a number."""
        return self._neighbours(np.array([number], np.int64), np.array([cosine], np.float32))[0]

    def described(self, numbers: Numbers) -> list[Neighbour]:
        """What is known of the pictures with these keys, as numbers; their cosine is 1."""
        return self._neighbours(numbers, np.ones(len(numbers), np.float32))

    def _neighbours(self, numbers: Numbers, cosines: Rows) -> list[Neighbour]:
        fields: dict[int, dict[str, Any]] = {}
        for shard, indices in self._by_shard(numbers):
            table = self._table(shard).take(pa.array(indices)).to_pylist()
            for index, row in zip(indices.tolist(), table, strict=True):
                key = self.layout.key(shard["number"], index)
                place = {"key": key, "tar": shard["tar"]["path"], "split": shard["split"]}
                fields[int(key)] = {**row, "page": row["page"] or "", "caption": row["caption"] or "", **place}
        pairs = zip(numbers.tolist(), cosines.tolist(), strict=False)
        return [Neighbour(**fields[number], cosine=round(cosine, 4)) for number, cosine in pairs]

    def _table(self, shard: dict[str, Any]) -> pa.Table:
        number = shard["number"]
        with self._lock:
            if number not in self._tables:
                with self._local(shard["parquet"]["path"]):
                    self._tables[number] = read_columns(self.lake, shard["parquet"]["path"], COLUMNS)
            self._tables.move_to_end(number)
            while len(self._tables) > OPEN_SHARDS:
                self._tables.popitem(last=False)
            return self._tables[number]

    def thumbnail(self, key: str) -> bytes:
        """The JPEG of a picture, from its tar.

        Raises UsageError for a key that the dataset lacks or that cannot be found any more, CorruptFile.
        """
        unknown = f"dataset {self.lake.dataset!r} has no picture with the key {key!r}"
        try:
            number, row = self.layout.split(key)
        except LayoutError as error:
            raise UsageError(unknown) from error
        if number not in self._shards or key in self._left_out:
            raise UsageError(unknown)
        with self._lock:
            shard = self._open_shard(number)
            place = int(np.searchsorted(shard.records["row"], row))
            if place == len(shard.records) or shard.records["row"][place] != row:
                raise UsageError(unknown)
            record = IndexRecord._make(shard.records[place].item())
            return bytes(shard.read(key, "jpg", record.jpg, record.jpg_bytes))

    def _open_shard(self, number: int) -> OpenShard:
        if number not in self._open:
            with contextlib.ExitStack() as stack:
                opened = OpenShard(self._shard_files(self._shards[number], stack))
                stack.callback(opened.close)
                self._open[number] = opened, stack.pop_all()
        self._open.move_to_end(number)
        while len(self._open) > OPEN_SHARDS:
            self._close_oldest()
        return self._open[number][0]

    def _close_oldest(self) -> None:
        self._open.popitem(last=False)[1][1].close()

    def _shard_files(self, shard: dict[str, Any], stack: contextlib.ExitStack) -> ShardFiles:
        names = ("tar", *EMBEDDING_KINDS)
        tar, image, text = (stack.enter_context(self._local(shard[name]["path"])) for name in names)
        shape = (int(shard["num_rows"]), self.dim)
        verify = self.lake.command("verify", "--deep")
        path = index_path(shard, self.layout)
        local = stack.enter_context(self.lake.local(path)) if self.lake.exists(path) else None
        if local is None or read_index(local) is None:
            rows = [map_rows(embeddings, shape, verify) for embeddings in (image, text)]
            self.lake.write_bytes(path, to_npy(index_tar(tar, rows, shard, self.layout, verify)))
            local = stack.enter_context(self.lake.local(path))
        return ShardFiles(shard["number"], shard["tar"]["path"], tar, (image, text), shape, local, None, verify)


def check_clip(verified: Manifest, clip: str, lake: Lake) -> None:
    """Raises StageError if a dataset was embedded by another CLIP than the recipe's: their vectors do not compare.

    `clip`: what `clip_folder` calls the recipe's.
    """
    if verified.details["clip"] != clip:
        raise StageError(
            f"dataset {lake.dataset!r} was embedded by {verified.details['clip']}, and the recipe's CLIP is {clip}; "
            f"give the recipe that it was made with, or run {lake.command('run', '--until verify')}"
        )


def _unit(rows: npt.NDArray[Any]) -> Rows:
    """Rows of exact unit length, float32: in float16 their length is right to three digits."""
    exact = rows.astype(np.float32)
    unit: Rows = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def _greatest(cosines: Rows, numbers: Numbers, k: int) -> Hits:
    """The `k` greatest of each row of `cosines` `(n, m)`; of equal ones the first. Its columns are of the pictures
    `numbers` `(m,)`, which ascend."""
    columns = cosines.argmax(axis=1)[:, None] if k == 1 else np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Hits(numbers[columns], np.take_along_axis(cosines, columns, axis=1))


def _joined(left: Hits, right: Hits, k: int) -> Hits:
    """The `k` nearest of both; all keys of `left` come before those of `right`."""
    cosines = np.concatenate([left.cosines, right.cosines], axis=1)
    best = _greatest(cosines, np.arange(cosines.shape[1]), k)
    numbers = np.concatenate([left.numbers, right.numbers], axis=1)
    return Hits(np.take_along_axis(numbers, best.numbers, axis=1), best.cosines)


def _below_each_other(parts: list[Hits], k: int) -> Hits:
    """The hits of several blocks of queries."""
    if not parts:
        return Hits(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
    return Hits(np.concatenate([part.numbers for part in parts]), np.concatenate([part.cosines for part in parts]))


def _filled(hits: Hits, k: int) -> Hits:
    rest = ((0, 0), (0, k - hits.numbers.shape[1]))
    numbers = np.pad(hits.numbers, rest, constant_values=-1)
    return Hits(numbers, np.pad(hits.cosines, rest, constant_values=-np.inf))
