"""Parquet files of the lake, read with an error that names the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.errors import CorruptFile


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
