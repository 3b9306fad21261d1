"""A listing that comes in many answers must bring something new: a wiki cannot keep a scraper for ever.

Some answers may bring nothing, since a wiki may filter what it has already cut into portions. But a listing that goes
on through thousands of empty answers, that comes back to where it was, or lists the same again and again, has no end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sp_data.errors import WikiApiError
from sp_data.wiki.http.answers import Json, OddAnswer, one_line

MAX_REPEATED = 20
"""Answers or batches in a row that list only what was listed before."""
MAX_EMPTY = 2000
"""Empty answers in a row. A wiki that looks for files among a million pages gives so many."""
MAX_ANSWERS_A_BATCH = 5000
"""Answers about one batch of pages, each of which continues the lists of those pages."""


class Listing:
    """What a listing has brought so far. `wiki`: its name in errors. Each method raises WikiApiError."""

    def __init__(self, wiki: str) -> None:
        self._wiki = wiki
        self._answers: set[int] = set()
        self._positions: set[int] = set()
        self._titles: set[int] = set()
        self._num_repeated = self._num_empty = self._num_old_batches = self._num_in_batch = 0

    def take_answer(self, query: Json, *, completes_batch: bool) -> None:
        """Note the `query` of an answer that another one follows."""
        is_empty = not any(query.values())
        self._num_empty = self._num_empty + 1 if is_empty else 0
        self._num_in_batch = 0 if completes_batch else self._num_in_batch + 1
        if not is_empty:
            answer = _hash(query)
            self._num_repeated = self._num_repeated + 1 if answer in self._answers else 0
            self._answers.add(answer)
        if self._num_repeated >= MAX_REPEATED or self._num_empty >= MAX_EMPTY:
            raise self._endless("lists nothing new any more")
        if self._num_in_batch >= MAX_ANSWERS_A_BATCH:
            raise self._endless("never comes to the end of what it lists of some pages")

    def take_batch(self, titles: Iterable[str]) -> None:
        """Note the pages of a batch that is complete."""
        before = len(self._titles)
        titles = list(titles)
        self._titles.update(map(hash, titles))
        self._num_old_batches = self._num_old_batches + 1 if titles and len(self._titles) == before else 0
        if self._num_old_batches >= MAX_REPEATED:
            raise self._endless("lists the same pages again and again")

    def position_after(self, position: object, last: Mapping[str, str | int]) -> dict[str, str | int]:
        """Where to go on, by the `continue` of an answer."""
        if not isinstance(position, dict) or not all(isinstance(value, str | int) for value in position.values()):
            raise OddAnswer(self._wiki, f"its `continue` is {position!r}")
        number = _hash(position)
        if position == last or number in self._positions:
            raise self._endless(f"asks to continue where it was: {one_line(position)}")
        self._positions.add(number)
        return position

    def _endless(self, behaviour: str) -> WikiApiError:
        return WikiApiError(f"{self._wiki} {behaviour}; what was fetched is kept", "endless-continue")


def _hash(value: object) -> int:
    return hash(json.dumps(value, sort_keys=True))
