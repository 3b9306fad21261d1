"""Parquet files of the lake, read with an error that names the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sp_data.errors import CorruptFile

DENSE = {"compression": "zstd", "compression_level": 9, "use_dictionary": False}
"""How `pq.write_table` writes a table that is written whole again each time something changes. Titles, addresses and
digests are nearly all different, so that dictionaries of them only keep zstd from seeing what they share: a fifth to a
third less, and no slower."""
ROWS_A_BLOCK = 10_000
ROWS_A_COLUMN_BLOCK = 1 << 18


def read_table(path: Path, shown: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns. `shown` names it in errors.

    Raises CorruptFile if it is cut or no parquet, or lacks a column; FileNotFoundError if it is not there.
    """
    with _whole(shown):
        # One file, no data set: pyarrow would take a folder's name (`img_emb=3`) for a partition.
        table = pq.ParquetFile(path).read(columns=list(columns) if columns is not None else None)
    if missing := sorted(set(columns or ()) - set(table.schema.names)):
        raise CorruptFile(f"{shown} has no column {missing[0]!r}, it has {table.schema.names}; run its stage again")
    return table


def column_blocks(path: Path, shown: str, column: str) -> Iterator[pa.Array]:
    """One column, block by block, so that a file of a hundred million rows takes no more memory than a small one.

    Raises what `read_table` raises.
    """
    with _whole(shown), pq.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise CorruptFile(f"{shown} has no column {column!r}, it has {file.schema_arrow.names}")
        for batch in file.iter_batches(batch_size=ROWS_A_COLUMN_BLOCK, columns=[column], use_threads=False):
            yield batch.column(0)


def table_blocks(path: Path, shown: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns, `ROWS_A_BLOCK` rows at a time: a table of a hundred million rows takes no more memory than a small
    one. Raises what `read_table` raises."""
    with _whole(shown), pq.ParquetFile(path) as file:
        if missing := sorted(set(columns) - set(file.schema_arrow.names)):
            raise CorruptFile(f"{shown} has no column {missing[0]!r}, it has {file.schema_arrow.names}")
        yield from file.iter_batches(batch_size=ROWS_A_BLOCK, columns=list(columns), use_threads=False)


def num_rows_in(path: Path, shown: str) -> int:
    """Rows of a parquet file, from its footer. Raises what `read_table` raises."""
    with _whole(shown), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


@contextlib.contextmanager
def _whole(shown: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, EOFError) as error:
        what = str(error).splitlines()[0]
        raise CorruptFile(f"{shown} is no whole parquet file ({what}); delete it and run its stage again") from error


def table_of(rows: Iterable[str], schema: pa.Schema) -> pa.Table:
    """A table from rows as JSON objects.

    `pa.Table.from_pylist` imports pandas where it is installed, which takes longer than scraping what a week changed.
    """
    waiting = iter(rows)
    tables = [pa.Table.from_batches([], schema)]
    while lines := "\n".join(islice(waiting, ROWS_A_BLOCK)).encode():
        options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        # One block: no row straddles two.
        reading = pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
        table = pyarrow.json.read_json(io.BytesIO(lines), read_options=reading, parse_options=options)
        tables.append(table.select(schema.names))
    return pa.concat_tables(tables)
