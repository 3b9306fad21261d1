"""What commands print that no table is: lines, JSON objects, and paths to open.

Titles, captions and answers are other people's words: what a terminal would act on in them is printed as '\\x1b'.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sp_data.foreign_text import json_text, one_line

if TYPE_CHECKING:
    from sp_data.lake import Lake


def say(line: object, *, err: bool = False) -> None:
    """Print a line, to standard error if `err`; whatever it holds, it stays one line of plain text."""
    typer.echo(one_line(line), err=err)


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json_text(value))


def path_to_open(lake: Lake, path: str) -> str:
    """A file of the lake as something to open: a path as short as it goes on this machine, else its URL."""
    full = lake.full(path)
    if not lake.is_local:
        return full
    here = Path.cwd()
    return str(Path(full).relative_to(here)) if Path(full).is_relative_to(here) else full
