"""Parquet files of the lake. Errors of reading name the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sp_data.errors import CorruptFile, SpDataError, reason_of

DENSE = {"compression": "zstd", "compression_level": 9, "use_dictionary": False}
"""Options of `pq.write_table` for a table that is rewritten whole at every change. Titles, addresses and digests are
nearly all different, so dictionaries would only hide from zstd what they share: without them files are a fifth to a
third smaller, and writing is no slower."""
ROWS_A_BLOCK = 10_000
ROWS_A_COLUMN_BLOCK = 1 << 18


def read_table(path: Path, display_name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns. `display_name` is its name in errors.

    Raises CorruptFile if the file is cut, is not parquet or lacks a column; FileNotFoundError if it does not exist.
    """
    with _corrupt_file_named(display_name):
        # Not as a dataset: pyarrow would take a folder's name (`img_emb=3`) for a partition.
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if twice := sorted(name for name in set(columns or ()) if names.count(name) > 1):
            raise CorruptFile(
                f"{display_name} has the column {twice[0]!r} {names.count(twice[0])} times: expected once"
            )
        table = file.read(columns=list(columns) if columns is not None else None)
    if missing := sorted(set(columns or ()) - set(table.schema.names)):
        raise CorruptFile(
            f"{display_name} has no column {missing[0]!r} among {table.schema.names}; run its stage again"
        )
    return table


def column_blocks(path: Path, display_name: str, column: str) -> Iterator[pa.Array]:
    """One column, block by block: a file of a hundred million rows takes no more memory than a small one.

    Raises what `read_table` raises.
    """
    with _corrupt_file_named(display_name), pq.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise CorruptFile(f"{display_name} has no column {column!r} among {file.schema_arrow.names}")
        for batch in file.iter_batches(batch_size=ROWS_A_COLUMN_BLOCK, columns=[column], use_threads=False):
            yield batch.column(0)


def table_blocks(path: Path, display_name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns, `ROWS_A_BLOCK` rows at a time: a table of a hundred million rows takes no more memory than a small
    one. Raises what `read_table` raises."""
    with _corrupt_file_named(display_name), pq.ParquetFile(path) as file:
        if missing := sorted(set(columns) - set(file.schema_arrow.names)):
            raise CorruptFile(f"{display_name} has no column {missing[0]!r} among {file.schema_arrow.names}")
        yield from file.iter_batches(batch_size=ROWS_A_BLOCK, columns=list(columns), use_threads=False)


def num_rows_in(path: Path, display_name: str) -> int:
    """Rows of a parquet file, from its footer. Raises what `read_table` raises."""
    with _corrupt_file_named(display_name), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


@contextlib.contextmanager
def _corrupt_file_named(display_name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, SpDataError):
        raise
    except Exception as error:
        # A broken file makes pyarrow raise its own errors, Python's, and OSError of the format that lies within.
        raise CorruptFile(
            f"{display_name} is not a complete parquet file ({reason_of(error)}); delete it and run its stage again"
        ) from error


def table_of(rows: Iterable[str], schema: pa.Schema) -> pa.Table:
    """A table from rows that are JSON objects, one a line.

    `pa.Table.from_pylist` would import pandas where it is installed, which takes longer than scraping a week's changes.
    """
    remaining = iter(rows)
    tables = [pa.Table.from_batches([], schema)]
    while lines := "\n".join(islice(remaining, ROWS_A_BLOCK)).encode():
        parse_options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        # One block: no row straddles two.
        read_options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
        table = pyarrow.json.read_json(io.BytesIO(lines), read_options=read_options, parse_options=parse_options)
        tables.append(table.select(schema.names))
    return pa.concat_tables(tables)
