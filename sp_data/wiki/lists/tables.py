"""The rows of a .csv or .tsv: cells as they are written, with quotes, line ends in quotes, and any dialect's delimiter.

    for line, address, caption, licence in read_table_rows(Path("pictures.csv"), ""):

The delimiter is the one with which the first row names a column of addresses: `,`, `;` (Excel in much of Europe), tab
or `|`. A row that has more or fewer cells than the first one is refused: one of its quotes or delimiters is not meant.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from sp_data.errors import RecipeError
from sp_data.wiki.lists.columns import Columns, choose_columns, describe, named
from sp_data.wiki.lists.text import LONGEST_LINE, Lines, open_lines, refusal

log = logging.getLogger(__name__)

Row = tuple[int, str, str, str | None]
"""Number of the line or row, address, caption, licence."""

DELIMITERS = (",", ";", "\t", "|")
DELIMITER_NAMES = {"\t": "tabs"}
HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""A first line that tells Excel the delimiter."""
WEB_ADDRESS = re.compile(r"\s*https?://", re.IGNORECASE)
CURE = 'put a cell that has quotes, delimiters or line ends into quotes, and double the quotes in it ("")'


def read_table_rows(path: Path, encoding: str) -> Iterator[Row]:
    """The rows that have any cell. Raises RecipeError."""
    is_tsv = path.suffix.lower() == ".tsv"
    with open_lines(path, encoding) as lines, _long_cells():
        delimiter, names = _header(lines, ("\t",) if is_tsv else DELIMITERS, path)
        columns = choose_columns(names, path)
        log.info(
            "%s: %s, cells parted by %s: %s",
            path,
            lines.codec.upper(),
            DELIMITER_NAMES.get(delimiter, f"`{delimiter}`"),
            describe(columns, names),
        )
        yield from _rows(lines, delimiter, columns, names, path)


def names_columns(line: str, path: Path) -> bool:
    """Whether a line is the first row of a table: names of several columns, one of addresses among them."""
    for delimiter in DELIMITERS:
        with contextlib.suppress(csv.Error, StopIteration):
            names = [name.strip() for name in next(_reader(iter([line]), delimiter))]
            if len(names) > 1 and _has_addresses(names, path):
                return True
    return False


def _rows(lines: Lines, delimiter: str, columns: Columns, names: list[str], path: Path) -> Iterator[Row]:
    num_cells, line = len(names), lines.number + 1
    reader = _reader(lines, delimiter)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise refusal(path, f"{_reason(error, line, lines.number)}; {CURE}", line) from error
        if cells is None:
            return
        # Excel writes rows of empty cells below the last one.
        if len(cells) == num_cells and any(cells):
            if lines.number > line:
                _refuse_swallowed_row(cells, line, delimiter, columns, path)
            address, caption, licence = cells[columns.address], "", None
            for place in columns.captions:
                caption = caption or cells[place]
            for place in columns.licences:
                licence = licence or cells[place] or None
            yield line, address, caption, licence
        elif any(cells):
            first = named([cells[0]])
            raise refusal(
                path, f"has {len(cells)} cells, the first row has {num_cells} (it begins with {first}); {CURE}", line
            )
        line = lines.number + 1


def _refuse_swallowed_row(cells: list[str], line: int, delimiter: str, columns: Columns, path: Path) -> None:
    """Raise RecipeError if a cell of several lines has a row in it: a quote that was not meant opened it."""
    for cell in cells:
        for inner in cell.splitlines():
            parts = inner.split(delimiter)
            if len(parts) == len(cells) and WEB_ADDRESS.match(parts[columns.address]):
                raise refusal(
                    path, f"opens a quote that is closed lines later, with the row {named([inner])} in it; {CURE}", line
                )


def _header(lines: Lines, delimiters: tuple[str, ...], path: Path) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns."""
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise refusal(path, "is empty")
    if hint := HINT.fullmatch(first):
        delimiters, first = (hint[1],), next(lines, "")
    readings: dict[str, list[str]] = {}
    for delimiter in delimiters:
        # A first row that cannot be read in a dialect is of another one.
        with contextlib.suppress(csv.Error, StopIteration, ValueError, TypeError):
            readings[delimiter] = [name.strip() for name in next(_reader(iter([first]), delimiter))]
    if not readings:
        raise refusal(path, f"cannot be read as the names of the columns; {CURE}", lines.number)
    fitting = {delimiter: names for delimiter, names in readings.items() if _has_addresses(names, path)}
    if not fitting:
        # The error of the reading that finds most columns names them.
        most = max(readings.values(), key=len)
        choose_columns(most, path)
    several = {delimiter: names for delimiter, names in fitting.items() if len(names) > 1}
    if len(several) > 1:
        raise refusal(path, f"names its columns in two dialects at once: {named([first.strip()])}", lines.number)
    return next(iter((several or fitting).items()))


def _has_addresses(names: list[str], path: Path) -> bool:
    with contextlib.suppress(RecipeError):
        choose_columns(names, path)
        return True
    return False


def _reader(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, doublequote=True, skipinitialspace=True, strict=True)


def _reason(error: csv.Error, begins: int, ends: int) -> str:
    if str(error) == "unexpected end of data":
        return "opens a quote that is never closed"
    span = f" (up to line {ends:,})" if ends > begins else ""
    return f"is not CSV: {error}{span}"


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of any length: Python's reader refuses more than 128 KB by default."""
    before = csv.field_size_limit(LONGEST_LINE * 4)
    try:
        yield
    finally:
        csv.field_size_limit(before)
