"""Pictures that a CLIP finds nearly the same, however their pixels differ: listed to be looked at, never dropped.

    reports/close-pairs-3f2a91bc5d60.csv      cosine, key, title and split of both, the nearest first

Curate compares pixels before there are embeddings; a drawing in another size of frame, or the same scene a second
later, passes it. A pair over two splits flatters whoever is tested on it. All pairs are compared, block by block of two
shards: n^2 / 2 products of as many numbers as an embedding has.
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
"""Pictures up to which all pairs are compared without being asked to: some ten seconds on two cores."""
MAX_LISTED = 1000
ROWS_A_BLOCK = 1000

Pair = tuple[float, str, str]
"""Cosine and two keys."""


@dataclass(frozen=True, slots=True)
class PairsJob:
    """One shard against itself and those after it. Plain values, so that it can travel."""

    dataset: Dataset
    numbers: list[int]
    dead: dict[int, frozenset[str]]
    min_cosine: float


@dataclass(frozen=True, slots=True)
class ClosePairs:
    """How many there are, and the nearest of them."""

    num_pairs: int
    nearest: list[Pair]


def close_pairs_path(reordered: str) -> str:
    """Where the pairs of the embeddings of this digest are listed."""
    return f"reports/close-pairs-{reordered[:12]}.csv"


def find_close_pairs(
    dataset: Dataset, numbers: list[int], dead: dict[int, frozenset[str]], min_cosine: float, runner: JobRunner
) -> ClosePairs:
    """Pairs of live pictures in the shards of these numbers, nearest first. Raises CorruptFile, FileNotFoundError."""
    jobs = (PairsJob(dataset, numbers[place:], dead, min_cosine) for place in range(len(numbers)))
    num_pairs, nearest = 0, list[Pair]()
    for found in runner.map(pairs_of, jobs):
        num_pairs += found.num_pairs
        nearest = heapq.nlargest(MAX_LISTED, [*nearest, *found.nearest])
    return ClosePairs(num_pairs, nearest)


def pairs_of(job: PairsJob) -> ClosePairs:
    """Those of the first of the job's shards with itself and the others."""
    look, first = CheckContext.at(job.dataset), job.numbers[0]
    ours, indices = _live(look, first, job.dead)
    num_pairs, nearest = 0, list[Pair]()
    key = job.dataset.layout.key
    for number in job.numbers if len(ours) else ():
        theirs, their_indices = (ours, indices) if number == first else _live(look, number, job.dead)
        for start in range(0, len(ours), ROWS_A_BLOCK):
            cosines = ours[start : start + ROWS_A_BLOCK] @ theirs.T
            if number == first:
                # Each pair once, and none with itself.
                cosines[np.arange(len(theirs)) <= np.arange(start, start + len(cosines))[:, None]] = -1
            left, right = np.nonzero(cosines >= job.min_cosine)
            num_pairs += len(left)
            best = np.argsort(-cosines[left, right], kind="stable")[:MAX_LISTED]
            pairs = [
                (
                    float(cosines[left[one], right[one]]),
                    key(first, int(indices[start + left[one]])),
                    key(number, int(their_indices[right[one]])),
                )
                for one in best
            ]
            nearest = heapq.nlargest(MAX_LISTED, [*nearest, *pairs])
    return ClosePairs(num_pairs, nearest)


def _live(
    look: CheckContext, number: int, dead: dict[int, frozenset[str]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The image embeddings of a shard's live pictures, `(n, dim)`, and their indices within it."""
    layout = look.of.layout
    rows = load_rows(look, look.of.reordered_path("img_emb", layout.shard_name(number))).astype(np.float32)
    alive = rows.any(axis=1)
    alive[[layout.split(key)[1] for key in dead.get(number, ())]] = False
    indices = np.flatnonzero(alive)
    return rows[indices], indices


def to_csv(look: CheckContext, pairs: Iterable[Pair]) -> bytes:
    """The pairs as a table with titles and splits."""
    listed = list(pairs)
    said = dict(_said(look, {key for _, *keys in listed for key in keys}))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cosine", "key", "title", "split", "other_key", "other_title", "other_split"])
    for cosine, key, other in listed:
        writer.writerow([f"{cosine:.4f}", key, *said[key], other, *said[other]])
    return out.getvalue().encode()


def _said(look: CheckContext, keys: set[str]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Key -> title and split."""
    layout = look.of.layout
    for number in sorted({layout.split(key)[0] for key in keys}):
        rows = read_columns(look.lake, f"shards/{layout.shard_name(number)}.parquet", ["key", "title", "split"])
        for row in rows.to_pylist():
            if row["key"] in keys:
                yield row["key"], (row["title"], row["split"])
