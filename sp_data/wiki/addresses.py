"""A plain list of addresses as a source: no wiki, no listing, one request a picture.

    pictures.txt        one address a line; empty lines and lines that start with # are skipped
    pictures.csv        a column `url`, and optionally `caption` and `licence`
    pictures.parquet    the same columns

The address is the picture's title and its key. scrape_addresses.py fetches the pictures on a list.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv

from sp_data.errors import CorruptFile, RecipeError
from sp_data.parquet import read_table
from sp_data.web_address import without_login

log = logging.getLogger(__name__)

NOT_AN_ADDRESS = "not-an-address"
LONGEST_ADDRESS = 2000


@dataclass(frozen=True, slots=True)
class Address:
    """A line of a list. `status` is empty, or 'not-an-address'."""

    url: str
    caption: str
    licence: str | None
    status: str = ""


def read_addresses(path: str) -> list[Address]:
    """The addresses of a list in its order, each once. Raises RecipeError if the list is missing or cannot be read."""
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"source.addresses: there is no file {path}")
    match file.suffix.lower():
        case ".txt":
            lines = [line.strip() for line in file.read_text("utf-8", "replace").splitlines()]
            rows: list[dict[str, Any]] = [{"url": line} for line in lines if line and not line.startswith("#")]
        case ".csv":
            rows = _columns(file, path)
        case ".parquet":
            rows = _columns(file, path)
        case _:
            raise RecipeError(f"source.addresses: {path} is neither .txt, .csv nor .parquet")
    addresses: dict[str, Address] = {}
    for row in rows:
        # An address is its picture's title, and a password has no place in a catalogue. It is refused when fetched.
        url = without_login(str(row.get("url") or "").strip()[:LONGEST_ADDRESS])
        licence = row.get("licence") or row.get("license")
        caption = " ".join(str(row.get("caption") or row.get("text") or "").split())
        addresses.setdefault(url, Address(url, caption, str(licence) if licence else None, _status_of(url)))
    if not addresses:
        raise RecipeError(f"source.addresses: {path} is empty")
    if repeated := len(rows) - len(addresses):
        log.info("%s: %d addresses, %d of them repeated", path, len(rows), repeated)
    return list(addresses.values())


def _columns(file: Path, path: str) -> list[dict[str, Any]]:
    try:
        table = pyarrow.csv.read_csv(file) if file.suffix.lower() == ".csv" else read_table(file, path)
    except (pa.ArrowException, CorruptFile) as error:
        raise RecipeError(f"source.addresses: {path} cannot be read ({str(error).splitlines()[0]})") from error
    if "url" not in table.schema.names:
        raise RecipeError(f"source.addresses: {path} has no column `url`, it has {table.schema.names}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _status_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        return "" if parts.scheme in ("http", "https") and parts.hostname else NOT_AN_ADDRESS
    except ValueError:
        return NOT_AN_ADDRESS
