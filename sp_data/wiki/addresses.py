"""A plain list of addresses as a source: no wiki, no listing, one request a picture.

    pictures.txt        one address a line; empty lines and lines that start with # are left out
    pictures.csv        a column `url`, and `caption` and `licence` where there are any
    pictures.parquet    the same columns

The address is the picture's title and its key. listed.py fetches what is on a list.
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

log = logging.getLogger(__name__)

NOT_AN_ADDRESS = "not-an-address"
LONGEST_ADDRESS = 2000


@dataclass(frozen=True, slots=True)
class Address:
    """A line of a list. `status` is empty, or why it is no address."""

    url: str
    caption: str
    licence: str | None
    status: str = ""


def read_addresses(path: str) -> list[Address]:
    """The list, each address once, in its order. Raises RecipeError if there is none that can be read."""
    place = Path(path)
    if not place.is_file():
        raise RecipeError(f"source.addresses: there is no file {path}")
    match place.suffix.lower():
        case ".txt":
            lines = [line.strip() for line in place.read_text("utf-8", "replace").splitlines()]
            rows: list[dict[str, Any]] = [{"url": line} for line in lines if line and not line.startswith("#")]
        case ".csv":
            rows = _columns(place, path)
        case ".parquet":
            rows = _columns(place, path)
        case _:
            raise RecipeError(f"source.addresses: {path} is neither .txt, .csv nor .parquet")
    found: dict[str, Address] = {}
    for row in rows:
        url = str(row.get("url") or "").strip()[:LONGEST_ADDRESS]
        licence = row.get("licence") or row.get("license")
        caption = " ".join(str(row.get("caption") or row.get("text") or "").split())
        found.setdefault(url, Address(url, caption, str(licence) if licence else None, _why_not(url)))
    if not found:
        raise RecipeError(f"source.addresses: {path} is empty")
    if repeated := len(rows) - len(found):
        log.info("%s: %d addresses, %d of them come more than once", path, len(rows), repeated)
    return list(found.values())


def _columns(place: Path, path: str) -> list[dict[str, Any]]:
    try:
        table = pyarrow.csv.read_csv(place) if place.suffix.lower() == ".csv" else read_table(place, path)
    except (pa.ArrowException, CorruptFile) as error:
        raise RecipeError(f"source.addresses: {path} cannot be read ({str(error).splitlines()[0]})") from error
    if "url" not in table.schema.names:
        raise RecipeError(f"source.addresses: {path} has no column `url`, it has {table.schema.names}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _why_not(url: str) -> str:
    try:
        parts = urlsplit(url)
        return "" if parts.scheme in ("http", "https") and parts.hostname else NOT_AN_ADDRESS
    except ValueError:
        return NOT_AN_ADDRESS
