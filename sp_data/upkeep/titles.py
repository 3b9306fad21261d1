"""Find the title that a person means: as the wiki writes it or nearly so, an address of a list, a key of an import."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.wiki.parse.titles import file_title, normal_name

TITLES_COMPARED = 100_000
"""With more titles, a search for similar ones takes longer than a person waits."""


def resolve_title(name: str, known: Collection[str], lake: Lake) -> str:
    """The one of the `known` titles that `name` means. Raises UsageError, which names similar titles if there are any.

    'File:Ada_Birch.png', 'ada Birch.png' -> 'File:Ada Birch.png'
    """
    bare = name.removeprefix("File:")
    for title in (name, file_title(bare), file_title(normal_name(bare))):
        if title in known:
            return title
    similar = difflib.get_close_matches(name, known, n=3) if len(known) <= TITLES_COMPARED else []
    hint = f"did you mean {', '.join(similar)}?" if similar else f"{lake.command('why --recipe')} lists all of them"
    raise UsageError(f"no catalogue of {lake.dataset!r} has {name!r}; {hint}")
