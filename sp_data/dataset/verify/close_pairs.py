"""Pictures that a CLIP finds nearly the same, however their pixels differ: listed for a person, never dropped.

    reports/close-pairs-3f2a91bc5d60.csv      cosine; key, title and split of both pictures; nearest first

Curate compares pixels, before there are embeddings; it lets pass a drawing in a frame of another size, or the same
scene a second later. A pair over two splits makes a model's test results look better than they are. All pairs are
compared, two shards at a time: n^2 / 2 products of as many numbers as an embedding has.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.dataset.shards.stage import read_columns
from sp_data.dataset.verify.context import CheckContext, Dataset, load_rows
from sp_data.runtime.jobs import JobRunner

MAX_FAST = 30_000
"""Up to this many pictures all pairs are compared without `deep`: some ten seconds on two cores."""
MAX_LISTED = 1000
ROWS_A_BLOCK = 1000

Pair = tuple[float, str, str]
"""Cosine and two keys."""


@dataclass(frozen=True, slots=True)
class PairsJob:
    """Compare the first of these shards with itself and the others. Plain values, to be sent to another machine."""

    dataset: Dataset
    numbers: list[int]
    tombstones: dict[int, frozenset[str]]
    min_cosine: float


@dataclass(frozen=True, slots=True)
class ClosePairs:
    """How many close pairs there are, and the nearest of them."""

    num_pairs: int
    nearest: list[Pair]


def close_pairs_path(reordered: str) -> str:
    """Where the close pairs are listed; `reordered` is the digest of the reorder manifest."""
    return f"reports/close-pairs-{reordered[:12]}.csv"


def find_close_pairs(
    dataset: Dataset, numbers: list[int], tombstones: dict[int, frozenset[str]], min_cosine: float, runner: JobRunner
) -> ClosePairs:
    """The close pairs of live pictures in the shards of these numbers, nearest first.

    Raises CorruptFile, FileNotFoundError.
    """
    jobs = (PairsJob(dataset, numbers[start:], tombstones, min_cosine) for start in range(len(numbers)))
    num_pairs, nearest = 0, list[Pair]()
    for pairs in runner.map(pairs_of, jobs):
        num_pairs += pairs.num_pairs
        nearest = heapq.nlargest(MAX_LISTED, [*nearest, *pairs.nearest])
    return ClosePairs(num_pairs, nearest)


def pairs_of(job: PairsJob) -> ClosePairs:
    """The close pairs of the job's first shard with itself and with the others."""
    context, first = CheckContext.at(job.dataset), job.numbers[0]
    rows, indices = _live(context, first, job.tombstones)
    num_pairs, nearest = 0, list[Pair]()
    key = job.dataset.layout.key
    for number in job.numbers if len(rows) else ():
        other_rows, other_indices = (rows, indices) if number == first else _live(context, number, job.tombstones)
        for start in range(0, len(rows), ROWS_A_BLOCK):
            cosines = rows[start : start + ROWS_A_BLOCK] @ other_rows.T
            if number == first:
                # Count each pair once, and no picture with itself.
                cosines[np.arange(len(other_rows)) <= np.arange(start, start + len(cosines))[:, None]] = -1
            left, right = np.nonzero(cosines >= job.min_cosine)
            num_pairs += len(left)
            best = np.argsort(-cosines[left, right], kind="stable")[:MAX_LISTED]
            pairs = [
                (
                    float(cosines[left[pair], right[pair]]),
                    key(first, int(indices[start + left[pair]])),
                    key(number, int(other_indices[right[pair]])),
                )
                for pair in best
            ]
            nearest = heapq.nlargest(MAX_LISTED, [*nearest, *pairs])
    return ClosePairs(num_pairs, nearest)


def _live(
    context: CheckContext, number: int, tombstones: dict[int, frozenset[str]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The image embeddings of a shard's live pictures, `(n, dim)`, and their indices within it."""
    layout = context.dataset.layout
    rows = load_rows(context, context.dataset.reordered_path("img_emb", layout.shard_name(number))).astype(np.float32)
    alive = rows.any(axis=1)
    alive[[layout.split(key)[1] for key in tombstones.get(number, ())]] = False
    indices = np.flatnonzero(alive)
    return rows[indices], indices


def to_csv(context: CheckContext, pairs: Iterable[Pair]) -> bytes:
    """The pairs as a CSV table, with titles and splits."""
    rows = list(pairs)
    title_and_split = dict(_titles_and_splits(context, {key for _, *keys in rows for key in keys}))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cosine", "key", "title", "split", "other_key", "other_title", "other_split"])
    for cosine, key, other in rows:
        writer.writerow([f"{cosine:.4f}", key, *title_and_split[key], other, *title_and_split[other]])
    return out.getvalue().encode()


def _titles_and_splits(context: CheckContext, keys: set[str]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Key -> title and split."""
    layout = context.dataset.layout
    for number in sorted({layout.split(key)[0] for key in keys}):
        rows = read_columns(context.lake, f"shards/{layout.shard_name(number)}.parquet", ["key", "title", "split"])
        for row in rows.to_pylist():
            if row["key"] in keys:
                yield row["key"], (row["title"], row["split"])
