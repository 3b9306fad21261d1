"""A plain list of addresses as a source: no wiki, no listing, one request a picture.

    pictures.txt        one address a line; empty lines and lines that start with # are skipped
    pictures.csv        a column `url`, and optionally `caption` and `licence`; .tsv too
    pictures.parquet    the same columns

The address is the picture's title and its key. The readers are in lists/; scrape_addresses.py fetches the pictures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sp_data.errors import RecipeError
from sp_data.web_address import without_login
from sp_data.wiki.lists.columns import named
from sp_data.wiki.lists.tables import Row, names_columns, read_table_rows
from sp_data.wiki.lists.text import open_lines, refusal

log = logging.getLogger(__name__)

NOT_AN_ADDRESS = "not-an-address"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?(?:/[!-~]*)?")
"""Nearly all addresses; a list may have millions, and taking one apart takes longer than reading its line."""
SUFFIXES = "neither .txt, .csv nor .parquet"


class Address(NamedTuple):
    """A line of a list. `status` is empty, or begins with 'not-an-address'."""

    url: str
    caption: str
    licence: str | None
    status: str = ""


def read_addresses(path: str, encoding: str = "") -> list[Address]:
    """The addresses of a list in its order, each once. `encoding`: of a list that is not Unicode; empty: it is.

    Raises RecipeError, with the line and the cure, if the list is missing or any of it cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        where = "" if file.is_absolute() else f" in the current folder, {Path.cwd()}"
        raise RecipeError(f"source.addresses: there is no file {path}{where}")
    addresses: dict[str, Address] = {}
    num_rows = num_without = 0
    try:
        for line, cell, text, licence in reader_of(file)(file, encoding):
            # An address is its picture's title, and a password has no place in a catalogue. It is refused when fetched.
            url = without_login(cell.strip().strip("\ufeff"))
            if not url:
                num_without += 1
                if num_without == 1:
                    log.warning("%s: row %d has no address and is left out", path, line)
                continue
            num_rows += 1
            if url not in addresses:
                addresses[url] = Address(url, " ".join(text.split()), (licence or "").strip() or None, _status_of(url))
    except OSError as error:
        raise refusal(file, f"cannot be read ({error.strerror or error})") from error
    if not addresses:
        raise refusal(file, "is empty" if not num_without else f"is empty: its {num_without:,} rows have no address")
    if all(address.status for address in addresses.values()):
        first = named([next(iter(addresses))])
        raise refusal(file, f"has no web address in its {num_rows:,} rows, which begin with {first}; is it the list?")
    if num_without > 1:
        log.warning("%s: %d rows have no address and are left out", path, num_without)
    if repeated := num_rows - len(addresses):
        log.info("%s: %d addresses, %d of them repeated", path, num_rows, repeated)
    return list(addresses.values())


def reader_of(file: Path) -> Callable[[Path, str], Iterator[Row]]:
    """The reader of a list's rows, by the file's name. Raises RecipeError."""
    match file.suffix.lower():
        case ".txt":
            return _read_lines
        case ".csv" | ".tsv":
            return read_table_rows
        case ".parquet":
            from sp_data.wiki.lists.parquet import read_parquet_rows

            return read_parquet_rows
        case ".gz" | ".bz2" | ".xz" | ".zst" | ".zip":
            raise refusal(file, f"is {SUFFIXES}: unpack it first")
        case ".xls" | ".xlsx" | ".ods":
            raise refusal(file, f"is {SUFFIXES}: save it as `CSV UTF-8`")
        case _:
            raise refusal(file, f"is {SUFFIXES}")


def _read_lines(file: Path, encoding: str) -> Iterator[Row]:
    is_first = True
    with open_lines(file, encoding) as lines:
        for line in lines:
            url = line.strip()
            if url and not url.startswith("#"):
                if is_first and names_columns(url, file):
                    raise refusal(file, f"is a table, whose columns are {named([url])}: name it .csv", lines.number)
                is_first = False
                yield lines.number, url, "", None


def _status_of(url: str) -> str:
    if _PLAIN.fullmatch(url):
        return ""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        return NOT_AN_ADDRESS
    # Python takes tabs and line ends out of an address without a word: another one would be requested.
    return f"{NOT_AN_ADDRESS} (a line end, tab or control character in it)" if _CONTROLS.search(url) else ""
