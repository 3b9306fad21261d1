"""Parquet files of the lake, read with an error that names the file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sp_data.errors import CorruptFile

ROWS_A_BLOCK = 10_000


def read_table(path: Path, shown: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns. `shown` names it in errors.

    Raises CorruptFile if it is cut or no parquet, or lacks a column; FileNotFoundError if it is not there.
    """
    try:
        # One file, no data set: pyarrow would take a folder's name (`img_emb=3`) for a partition.
        table = pq.ParquetFile(path).read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowException, EOFError) as error:
        what = str(error).splitlines()[0]
        raise CorruptFile(f"{shown} is no whole parquet file ({what}); delete it and run its stage again") from error
    if missing := sorted(set(columns or ()) - set(table.schema.names)):
        raise CorruptFile(f"{shown} has no column {missing[0]!r}, it has {table.schema.names}; run its stage again")
    return table


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
