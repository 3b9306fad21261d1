"""The rows of a foreign shard: img2dataset's parquet, with each column that sp-data reads in the type that it expects.

Text may be dictionary-encoded or large; numbers may be floats, as pandas writes them beside missing ones. Columns of
other types are refused by name. Where there is no parquet, as in datasets of the Hugging Face Hub that consist of tars
alone, the rows are read from the .json and .txt in the tar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sp_data.canonical import parse_json
from sp_data.dataset.shards.tars import SUCCESS, read_tar
from sp_data.errors import CorruptFile
from sp_data.parquet import read_table

NEEDED = ("key", "status", "error_message", "url")
TEXT = (
    *NEEDED,
    *("caption", "title", "page", "licence", "license", "uploader", "split", "variants"),
    *("sha1", "sha256", "sha512", "md5"),
)
NUMBERS = ("width", "height", "original_width", "original_height", "revision")
MAX_NUMBER = 2**31 - 1
CURE = "write the column again, or run img2dataset on this shard again"


def read_foreign(parquet: Path) -> pa.Table:
    """img2dataset's parquet. Raises CorruptFile, naming file, column and row."""
    table = read_table(parquet, str(parquet))
    if lacking := sorted({*NEEDED} - {*table.schema.names}):
        raise CorruptFile(f"{parquet} has no column {lacking[0]!r}: expected img2dataset's own parquet")
    if len(set(table.schema.names)) != len(table.schema.names):
        raise CorruptFile(f"{parquet} has a column twice: expected img2dataset's own parquet")
    for position, name in enumerate(table.schema.names):
        if name in TEXT:
            table = table.set_column(position, name, _text(table[name], name, parquet))
        elif name in NUMBERS:
            table = table.set_column(position, name, _number(table[name], name, parquet))
    if table["key"].null_count:
        row = pc.index(pc.is_valid(table["key"]), value=False).as_py()
        raise CorruptFile(f"{parquet} row {row} has no key; {CURE}")
    return table


def rows_of_tar(tar: Path) -> pa.Table:
    """The rows of a plain tar that no parquet lies beside, in the tar's order. Raises CorruptFile."""
    rows = []
    for key, parts in read_tar(tar):
        try:
            fields = parse_json(parts.get("json", b"{}"))
            caption = parts["txt"].decode("utf-8") if "txt" in parts else None
        except ValueError as error:
            raise CorruptFile(f"{tar}: the .json or .txt of sample {key} cannot be read ({error})") from error
        if not isinstance(fields, dict):
            raise CorruptFile(f"{tar}: the .json of sample {key} is no object such as img2dataset writes")
        row: dict[str, Any] = {
            name: value for name in TEXT if isinstance(value := fields.get(name), str) and _is_text(value)
        }
        for name in NUMBERS:
            value = fields.get(name)
            is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
            row[name] = value if is_number else None
        written = {"key": key, "status": SUCCESS, "error_message": None, "url": row.get("url") or ""}
        rows.append(row | written | ({} if caption is None else {"caption": caption}))
    schema = pa.schema([(name, pa.string()) for name in TEXT] + [(name, pa.int64()) for name in NUMBERS])
    return pa.table({name: pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names})


def _is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: JSON can name halves of characters."""
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)


def _text(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        hint = "text of digits with its zeros, such as 000070042" if name == "key" else "text"
        raise CorruptFile(f"{path} has the column {name!r} as {column.type}: expected {hint}; {CURE}")
    try:
        return column.cast(pa.string())
    except (pa.ArrowException, OverflowError) as error:
        raise CorruptFile(f"{path}: the column {name!r} cannot be read as text ({error}); {CURE}") from error


def _number(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """Whole numbers from 0, null where there is none: NaN, negative ones and ones that no picture has."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise CorruptFile(f"{path} has the column {name!r} as {kind}: expected whole numbers; {CURE}")
    numbers = [
        int(value) if value is not None and 0 <= value <= MAX_NUMBER and value == int(value) else None
        for value in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(numbers, pa.int64())])
