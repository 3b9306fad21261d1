"""The rows of a .parquet list. What is text is taken: strings of every kind, and bytes that are text.

A number, a list or a picture in a column of captions is no caption; the column is refused by its name and type.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.errors import RecipeError
from sp_data.wiki.lists.columns import choose_columns, describe
from sp_data.wiki.lists.tables import Row
from sp_data.wiki.lists.text import refusal

log = logging.getLogger(__name__)

ROWS_A_BLOCK = 10_000
CURES = (
    (pa.types.is_nested, "write one text a row"),
    (lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind), "write the numbers as text"),
)


def read_parquet_rows(path: Path, encoding: str) -> Iterator[Row]:
    """The rows, block by block. `encoding`: of columns of bytes; empty: UTF-8. Raises RecipeError."""
    try:
        yield from _rows(path, encoding)
    except RecipeError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError, KeyError) as error:
        raise refusal(path, f"cannot be read as parquet ({str(error) or type(error).__name__})") from error


def _rows(path: Path, encoding: str) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        columns = choose_columns(schema.names, path)
        for place in columns.used:
            _check_type(schema.field(place), path)
        log.info("%s: parquet: %s", path, describe(columns, schema.names))
        names = [schema.names[place] for place in columns.used]
        row = 1
        for batch in file.iter_batches(batch_size=ROWS_A_BLOCK, columns=names, use_threads=False):
            texts = [_texts(batch.column(name), name, path, encoding or "utf-8", row) for name in names]
            num_captions = len(columns.captions)
            for number, (address, *others) in enumerate(zip(*texts, strict=True), start=row):
                caption = next(filter(None, others[:num_captions]), "")
                licence = next(filter(None, others[num_captions:]), None)
                if caption or licence or address:
                    yield number, address, caption, licence
            row += batch.num_rows


def _check_type(field: pa.Field, path: Path) -> None:
    """Raises RecipeError unless a column of this type can be text."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if _is_string(kind) or _is_bytes(kind) or pa.types.is_null(kind):
        return
    cure = next((cure for fits, cure in CURES if fits(kind)), "write it as text")
    raise refusal(path, f"has the type {field.type} in its column `{field.name}`, where text is expected: {cure}")


def _texts(column: pa.Array, name: str, path: Path, encoding: str, first_row: int) -> list[str]:
    """A column's cells; nothing is ''."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return [""] * len(column)
    if _is_string(column.type):
        # Parquet does not promise that its strings are UTF-8, and a cast checks nothing.
        encoding = "utf-8"
        try:
            cells: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            cells = column.cast(pa.large_binary()).to_pylist()
    else:
        cells = column.to_pylist()
    texts = []
    for number, cell in enumerate(cells, start=first_row):
        try:
            text = "" if cell is None else cell if isinstance(cell, str) else bytes(cell).decode(encoding)
        except UnicodeDecodeError as error:
            raise refusal(
                path,
                f"has bytes in its column `{name}` that are not {encoding.upper()} text (row {number:,}, byte "
                f"0x{error.object[error.start]:02X}): write it as text, or set source.encoding if they are text",
            ) from error
        if "\0" in text:
            raise refusal(path, f"has a NUL character in its column `{name}` (row {number:,}): it is not text")
        texts.append(text)
    return texts


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"


def _is_bytes(kind: pa.DataType) -> bool:
    of_a_length = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or of_a_length or str(kind) == "binary_view"
