"""Which picture goes into which shard: decided from 33 bytes per picture, however long its row in the curated table.

    sample         16 bytes that identify a sample: a digest of title, bytes, captions and split
    KeptSamples    every sample of a curated table, with its split and its place among new pictures
    plan           new shards, of one split each, as rows of the curated table
    rows_of        those rows, shard by shard

Rows are read twice, block by block: once for their digests, and once to be put where the plan wants them. So memory
grows by 33 bytes per row only, up to tables of a hundred million rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sp_data.canonical import canonical_json, digest_of
from sp_data.dataset.curate.splits import SPLITS

MADE_OF = ("title", "sha1", "caption", "variants", "split")
"""Columns that identify a sample."""
SAMPLE_BYTES = 16
SHARDS_A_SPOOL = 16
"""Shards whose rows are in memory at a time."""
MAX_SPOOLS = 256
"""Spool files that are open at a time; where there are more shards, each spool gets more of them."""

SampleIds = npt.NDArray[np.bytes_]
"""`(n,)` S16."""


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard, without its rows. `identity` is a digest of what it is made of."""

    number: int
    split: str
    num_rows: int
    identity: str


@dataclass(frozen=True, slots=True)
class NewShard:
    """A shard to be made: `rows` of the curated table, `(num_rows,)` int64, in the order of their keys."""

    number: int
    split: str
    rows: npt.NDArray[np.int64]


def samples_in(table: pa.Table | pa.RecordBatch) -> SampleIds:
    """The sample of each row of a table that has the columns `MADE_OF`."""
    columns = [table.column(table.schema.get_field_index(name)).to_pylist() for name in MADE_OF]
    return np.array([_sample(row) for row in zip(*columns, strict=True)], dtype=f"S{SAMPLE_BYTES}")


def sample_of(row: Mapping[str, Any]) -> str:
    """The sample of one row, in hex."""
    return _sample([row[name] for name in MADE_OF]).hex()


def _sample(made_of: Sequence[Any]) -> bytes:
    return hashlib.sha256(canonical_json(made_of)).digest()[:SAMPLE_BYTES]


def hex_of(samples: SampleIds) -> list[str]:
    """Samples in hex, as in the column `sample` of a shard's parquet."""
    # numpy takes zeros at the end of a text for padding, so they are put back.
    return [bytes(sample).ljust(SAMPLE_BYTES, b"\0").hex() for sample in samples.tolist()]


def from_hex(texts: Iterable[str]) -> SampleIds:
    """The reverse of `hex_of`. Raises ValueError for a text that is not hex."""
    return np.array([bytes.fromhex(text) for text in texts], dtype=f"S{SAMPLE_BYTES}")


def identity_of_shard(
    number: int, split: str, rows: Iterable[tuple[str, str, str]], version: int, fields: Mapping[str, Any]
) -> str:
    """Digest of what a shard is made of: its rows as (sample, path, url), the stage's version, the recipe's fields."""
    return digest_of([version, dict(fields), number, split, [list(row) for row in rows]])


class KeptSamples:
    """The samples of a curated table, in the order of its rows and sorted."""

    def __init__(self, blocks: Iterable[pa.RecordBatch]) -> None:
        """`blocks` have the columns `MADE_OF`."""
        samples, splits, order = [], [], []
        for block in blocks:
            samples.append(samples_in(block))
            split_names = block.column(block.schema.get_field_index("split"))
            splits.append(pc.index_in(split_names, pa.array(SPLITS)).to_numpy(zero_copy_only=False).astype(np.uint8))
            titles = block.column(block.schema.get_field_index("title")).to_pylist()
            # By the title's hash: neighbours on the wiki (one episode, one artist) land far apart, and always in the
            # same order.
            order.append(np.array([hashlib.sha256(title.encode()).digest()[:8] for title in titles], dtype="V8"))
        all_samples = np.concatenate(samples) if samples else np.array([], dtype=f"S{SAMPLE_BYTES}")
        self._rows: npt.NDArray[np.int64] = np.argsort(all_samples, kind="stable")
        self._sorted: SampleIds = all_samples[self._rows]
        self._split = np.concatenate(splits) if splits else np.array([], np.uint8)
        self._order = (np.concatenate(order) if order else np.array([], "V8")).view(">u8")

    def __len__(self) -> int:
        return len(self._rows)

    def places(self, samples: SampleIds) -> npt.NDArray[np.int64]:
        """The place of each of these samples among the sorted ones, -1 for one that was not kept."""
        if not len(self):
            return np.full(len(samples), -1)
        places = np.minimum(np.searchsorted(self._sorted, samples), len(self) - 1)
        return np.where(self._sorted[places] == samples, places, -1)

    def rows(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of these places in the curated table, ascending."""
        return np.sort(self._rows[places])

    def plan(self, placed: npt.NDArray[np.bool_], size: int, first: int) -> list[NewShard]:
        """New shards of up to `size` pictures for samples that are not `placed` (by place), numbered from `first`."""
        unplaced = self._rows[~placed]
        shards: list[NewShard] = []
        for code in range(len(SPLITS)):
            rows = unplaced[self._split[unplaced] == code]
            rows = rows[np.lexsort((rows, self._order[rows]))]
            for start in range(0, len(rows), size):
                shards.append(NewShard(first + len(shards), SPLITS[code], rows[start : start + size]))
        return shards


def rows_of(
    shards: list[NewShard], blocks: Iterable[pa.RecordBatch], num_rows: int, folder: Path
) -> Iterator[tuple[NewShard, pa.Table]]:
    """Each shard with its rows of the curated table, in the order of its keys.

    `blocks` are the table's `num_rows` rows with the columns to be given; `folder` holds them meanwhile.
    """
    place_of = np.full(num_rows, -1, dtype=np.int64)
    for number, shard in enumerate(shards):
        # Shard and index as one number: the order in which rows are given.
        place_of[shard.rows] = (np.int64(number) << 32) + np.arange(len(shard.rows))
    shards_a_spool = max(SHARDS_A_SPOOL, -(-len(shards) // MAX_SPOOLS))
    num_spools = -(-len(shards) // shards_a_spool)
    _spool(blocks, place_of, num_spools, shards_a_spool, folder)
    for number in range(num_spools):
        path = folder / f"spool-{number}"
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            table = stream.read_all()
        table = table.take(pc.sort_indices(table["place"])).drop_columns(["place"])
        start = 0
        for shard in shards[number * shards_a_spool : (number + 1) * shards_a_spool]:
            yield shard, table.slice(start, len(shard.rows))
            start += len(shard.rows)
        path.unlink()


def _spool(
    blocks: Iterable[pa.RecordBatch],
    place_of: npt.NDArray[np.int64],
    num_spools: int,
    shards_a_spool: int,
    folder: Path,
) -> None:
    """Write the rows that have a place into files, `shards_a_spool` shards to a file."""
    with ExitStack() as stack:
        writers: list[Any] = []
        start = 0
        for block in blocks if num_spools else ():
            # Column names alone, without the schema's metadata.
            table = pa.Table.from_batches([block]).replace_schema_metadata()
            places = place_of[start : start + len(block)]
            start += len(block)
            table = table.append_column("place", pa.array(places))
            writers = writers or [
                stack.enter_context(pa.ipc.new_stream(str(folder / f"spool-{number}"), table.schema))
                for number in range(num_spools)
            ]
            spool = np.where(places < 0, -1, (places >> 32) // shards_a_spool)
            for number in np.unique(spool[spool >= 0]):
                writers[number].write_table(table.take(pa.array(np.flatnonzero(spool == number))))
