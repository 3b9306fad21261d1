"""What commands print that no table is: JSON objects, and paths to open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sp_data.lake import Lake


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def path_to_open(lake: Lake, path: str) -> str:
    """A file of the lake as something to open: a path as short as it goes on this machine, else its URL."""
    full = lake.full(path)
    if not lake.is_local:
        return full
    here = Path.cwd()
    return str(Path(full).relative_to(here)) if Path(full).is_relative_to(here) else full
