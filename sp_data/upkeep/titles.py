"""The title that a person means: as the wiki writes it or nearly so, an address of a list, a key of an import."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from sp_data.errors import UsageError
from sp_data.wiki.parse.titles import file_title, normal_name

TITLES_COMPARED = 100_000
"""Beyond so many a search for similar ones takes longer than a person waits."""


def resolve_title(asked: str, known: Collection[str], dataset: str) -> str:
    """The one of the `known` titles that `asked` means. Raises UsageError, with similar ones where there are any.

    'File:Ada_Birch.png', 'ada Birch.png' -> 'File:Ada Birch.png'
    """
    for title in (asked, file_title(normal_name(asked.removeprefix("File:")))):
        if title in known:
            return title
    similar = difflib.get_close_matches(asked, known, n=3) if len(known) <= TITLES_COMPARED else []
    hint = f"did you mean {', '.join(similar)}?" if similar else "`sp-data why` lists all of them"
    raise UsageError(f"no catalogue of {dataset!r} has {asked!r}; {hint}")
