"""Pictures that somebody asked to have removed: they are not fetched again, under any title.

    forgotten.json      [{"title": "File:Kenny.png", "sha1": "5f0c…", "when": "2026-11-22T23:58:58Z"}, ...]

The list lies beside the dataset and is in no digest: a catalogue is a function of the wiki and of this list. An entry
has one title and one sha1, and each of them alone excludes a picture; a picture that had other bytes before has an
entry for each. `sha1` is empty if it is not known, as for imported shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pydantic import TypeAdapter, ValidationError

from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.manifest import Frozen

PATH = "forgotten.json"
FORGOTTEN = "forgotten"
"""A catalogue row's status."""


class Entry(Frozen):
    title: str
    sha1: str
    when: str
    """ISO 8601, UTC."""


_ENTRIES = TypeAdapter(tuple[Entry, ...])


@dataclass(frozen=True)
class Forgotten:
    """The list, sorted by title and sha1."""

    entries: tuple[Entry, ...] = ()

    @cached_property
    def titles(self) -> frozenset[str]:
        return frozenset(entry.title for entry in self.entries)

    @cached_property
    def sha1s(self) -> frozenset[str]:
        return frozenset(entry.sha1 for entry in self.entries if entry.sha1)

    def covers(self, title: str, sha1: str) -> bool:
        return title in self.titles or sha1 in self.sha1s

    def joined(self, pairs: Iterable[tuple[str, str]], when: str) -> Forgotten:
        """The list with these (title, sha1) pairs added; entries that exist keep their time."""
        by_pair = {(entry.title, entry.sha1): entry for entry in self.entries}
        for title, sha1 in pairs:
            if sha1 or title not in self.titles:
                by_pair.setdefault((title, sha1), Entry(title=title, sha1=sha1, when=when))
        return Forgotten(tuple(by_pair[pair] for pair in sorted(by_pair)))


def read_forgotten(lake: Lake) -> Forgotten:
    """The lake's list, empty if there is none.

    Raises CorruptFile if the list cannot be read: without it, forgotten pictures would be fetched again.
    """
    try:
        data = lake.read_bytes(PATH)
    except FileNotFoundError:
        return Forgotten()
    try:
        return Forgotten(_ENTRIES.validate_json(data))
    except ValidationError as error:
        raise CorruptFile(
            f"{lake.full(PATH)}, the list of forgotten pictures, cannot be read ({error.errors()[0]['msg']}); "
            "restore its last copy, or repair it: without it, forgotten pictures would be fetched again"
        ) from error


def write_forgotten(lake: Lake, forgotten: Forgotten) -> None:
    rows = [entry.model_dump(mode="json") for entry in forgotten.entries]
    lake.write_bytes(PATH, json.dumps(rows, indent=1, ensure_ascii=False).encode() + b"\n", durable=True)
