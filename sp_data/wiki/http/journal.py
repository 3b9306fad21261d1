"""The journal of an unfinished scrape: each answer of the wiki, kept until the run is finished.

    wiki/journal/start.json           {"run": "9c1f…", "at": 1795391702.5}
    wiki/journal/2b7e….json.gz        {"asked": {...}, "answer": {...}}

A killed run leaves its journal behind. The next run makes the same queries in the same order, and the journal answers
those that the first run got answered. So no other code of the scraper has to know where a run can be interrupted.

Answers belong to one run: its name stands for what it has to do, and for what was known of the wiki when it began. A
run with another name finds none of them. What a wiki said is out of date after a day; a picture that came is not.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from sp_data.canonical import digest_of, parse_json
from sp_data.lake import Lake

log = logging.getLogger(__name__)

FOLDER = "wiki/journal"
START = f"{FOLDER}/start.json"
LONGEST_S = 24 * 3600.0
"""A run about a wiki that began longer ago starts again: too many of its answers are out of date by then."""


class Journal:
    """Answers by query. Before `begin`, nothing is found and nothing is kept."""

    def __init__(self, lake: Lake) -> None:
        self.age_s = 0.0
        """How long ago the run began that is continued; 0 for a new run."""
        self._lake = lake
        self._begun = False
        self._paths: set[str] = set()

    def begin(self, run: str, *, lasts_s: float = LONGEST_S) -> None:
        """Continue the unfinished run of this name, or start it; the journal of another run is removed.

        `lasts_s`: how long ago it may have begun; infinity: its answers are never out of date.
        """
        self._paths = set(self._lake.list(FOLDER))
        began = self._start_of(run, lasts_s) if START in self._paths else None
        if began is None:
            self.clear()
            self._lake.write_bytes(START, json.dumps({"run": run, "at": time.time()}).encode())
            self._paths.add(START)
        else:
            self.age_s = max(time.time() - began, 0.0)
        self._begun = True

    def _start_of(self, run: str, lasts_s: float) -> float | None:
        try:
            start = parse_json(self._lake.read_bytes(START))
            began = float(start["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_fresh = lasts_s == math.inf or 0 <= time.time() - began <= lasts_s
        return began if start["run"] == run and is_fresh else None

    def find(self, query: Mapping[str, Any]) -> Any | None:
        """The answer to a query that was made before in this run, else None."""
        path = _path(query)
        if not self._begun or path not in self._paths:
            return None
        try:
            return parse_json(gzip.decompress(self._lake.read_bytes(path)))["answer"]
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            log.info("%s cannot be read; the wiki is asked again", self._lake.full(path))
            return None

    def keep(self, query: Mapping[str, Any], answer: Any) -> None:
        if self._begun:
            path = _path(query)
            entry = {"asked": dict(query), "answer": answer}
            self._lake.write_bytes(path, gzip.compress(json.dumps(entry, ensure_ascii=False).encode(), 1))
            self._paths.add(path)

    def forget(self, unwanted: Callable[[Any], bool]) -> None:
        """Remove the answers of which this is true; the others are used again."""
        for path in self._paths - {START}:
            try:
                answer = parse_json(gzip.decompress(self._lake.read_bytes(path)))["answer"]
                is_unwanted = unwanted(answer)
            except (OSError, EOFError, ValueError, KeyError, TypeError):
                is_unwanted = True
            if is_unwanted:
                self._lake.remove(path)
                self._paths = self._paths - {path}

    def clear(self) -> None:
        """Remove the journal: the run is finished, or its answers cannot be used."""
        # The start first: answers without it belong to no run.
        for path in sorted(self._paths, key=lambda path: path != START):
            self._lake.remove(path)
        self._paths.clear()
        self._begun = False


def _path(query: Mapping[str, Any]) -> str:
    return f"{FOLDER}/{digest_of(dict(query))[:32]}.json.gz"
