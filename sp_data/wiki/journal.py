"""The journal of a scrape that is under way: each answer of the wiki, kept until the run is through.

    wiki/journal/2b7e….json.gz        {"asked": {...}, "at": 1795391702.5, "answer": {...}}

A killed run leaves it behind; the next one asks the same questions in the same order and finds them answered, as far as
the first one came. So no code of the scraper has to know where a run can be interrupted.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from sp_data.canonical import digest_of
from sp_data.lake import Lake

log = logging.getLogger(__name__)

FOLDER = "wiki/journal"
LONGEST_S = 24 * 3600.0
"""An answer that is older does not count: what changed since its first question is asked for in the next run, but a
picture that the wiki moved away days ago should not be asked for."""


class Journal:
    """Answers by question. Files are read when they are needed, none at the start."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._kept = set(lake.list(FOLDER))
        self.oldest: float | None = None
        """Of the answers that were found, in seconds since 1970; None if none was."""

    def find(self, asked: Mapping[str, Any]) -> Any | None:
        """The answer to a question that was asked before in this run, None if it was not."""
        path = _path(asked)
        if path not in self._kept:
            return None
        try:
            entry = json.loads(gzip.decompress(self._lake.read_bytes(path)))
            at, answer = float(entry["at"]), entry["answer"]
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            log.info("%s cannot be read; the wiki is asked again", self._lake.full(path))
            return None
        if not 0 <= time.time() - at <= LONGEST_S:
            return None
        self.oldest = at if self.oldest is None else min(self.oldest, at)
        return answer

    def keep(self, asked: Mapping[str, Any], answer: Any) -> None:
        path = _path(asked)
        entry = {"asked": dict(asked), "at": time.time(), "answer": answer}
        self._lake.write_bytes(path, gzip.compress(json.dumps(entry, ensure_ascii=False).encode(), 1))
        self._kept.add(path)

    def clear(self) -> None:
        """The run is through: its answers are part of what it wrote."""
        for path in sorted(self._kept):
            self._lake.remove(path)
        self._kept.clear()
        self.oldest = None


def _path(asked: Mapping[str, Any]) -> str:
    return f"{FOLDER}/{digest_of(dict(asked))[:32]}.json.gz"
