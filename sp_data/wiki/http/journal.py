"""The journal of a scrape that is under way: each answer of the wiki, kept until the run is through.

    wiki/journal/start.json           {"run": "9c1f…", "at": 1795391702.5}
    wiki/journal/2b7e….json.gz        {"asked": {...}, "answer": {...}}

A killed run leaves it behind; the next one asks the same questions in the same order and finds them answered, as far as
the first one came. So no code of the scraper has to know where a run can be interrupted.

Answers belong to one run: to what was to be done, and to what was known of the wiki when it began. A run with another
name finds none of them.
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
START = f"{FOLDER}/start.json"
LONGEST_S = 24 * 3600.0
"""A run that began longer ago begins again: by then too much of what it was told is no longer so."""


class Journal:
    """Answers by question. Until `begin` nothing is found and nothing kept."""

    def __init__(self, lake: Lake) -> None:
        self.age_s = 0.0
        """How long ago the run began that this one goes on with; 0 if it is a new one."""
        self._lake = lake
        self._begun = False
        self._kept: set[str] = set()

    def begin(self, run: str) -> None:
        """Go on with the run of this name if there is one under way, else start it; any other is forgotten."""
        self._kept = set(self._lake.list(FOLDER))
        began = self._began(run) if START in self._kept else None
        if began is None:
            self.clear()
            self._lake.write_bytes(START, json.dumps({"run": run, "at": time.time()}).encode())
            self._kept.add(START)
        else:
            self.age_s = time.time() - began
        self._begun = True

    def _began(self, run: str) -> float | None:
        try:
            start = json.loads(self._lake.read_bytes(START))
            began = float(start["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return began if start["run"] == run and 0 <= time.time() - began <= LONGEST_S else None

    def find(self, asked: Mapping[str, Any]) -> Any | None:
        """The answer to a question that was asked before in this run, None if it was not."""
        path = _path(asked)
        if not self._begun or path not in self._kept:
            return None
        try:
            return json.loads(gzip.decompress(self._lake.read_bytes(path)))["answer"]
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            log.info("%s cannot be read; the wiki is asked again", self._lake.full(path))
            return None

    def keep(self, asked: Mapping[str, Any], answer: Any) -> None:
        if self._begun:
            path = _path(asked)
            entry = {"asked": dict(asked), "answer": answer}
            self._lake.write_bytes(path, gzip.compress(json.dumps(entry, ensure_ascii=False).encode(), 1))
            self._kept.add(path)

    def clear(self) -> None:
        """Forget the run: it is through, or what it was told leads nowhere."""
        # The start first: answers without one belong to no run.
        for path in sorted(self._kept, key=lambda path: path != START):
            self._lake.remove(path)
        self._kept.clear()
        self._begun = False


def _path(asked: Mapping[str, Any]) -> str:
    return f"{FOLDER}/{digest_of(dict(asked))[:32]}.json.gz"
