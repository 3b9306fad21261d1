"""The queries to a wiki: pages with their joined lists and their wikitext, lists of changes, a page's HTML.

    with WikiClient(source) as client:
        for page in client.pages({"generator": "allimages", "gailimit": "max", "prop": "imageinfo"}):
            ...                                   # {'pageid': 8, 'title': 'File:Ada Birch.png', 'imageinfo': [...]}

`continue` is followed to the end, whatever the size of an answer. api.py makes the single query.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Self
from urllib.parse import quote_plus

from sp_data.errors import WikiApiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki.http import greeting
from sp_data.wiki.http.api import Api, ApiNotFound, Json, Params
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.http.transport import Transport, unreachable
from sp_data.wiki.http.xml_export import ExportedPage, read_export
from sp_data.wiki.parse.titles import Namespaces

log = logging.getLogger(__name__)

API_PATHS = ("/api.php", "/w/api.php")
PAGES_A_REQUEST = 50
"""MediaWiki's limit for named pages, and for pages with their content."""
PAGES_AN_EXPORT = 500
"""MediaWiki's limit for generators."""
LONGEST_TITLES = 5000
"""Characters that titles may take in an address; servers refuse addresses of more than 8 KB."""
CONTENT: Params = {"prop": "revisions", "rvprop": "content|ids", "rvslots": "main"}


@dataclass(frozen=True, slots=True)
class Site:
    """What is requested of a wiki only once: the address of its API, its version, and its names and words."""

    api: str
    namespaces: Namespaces
    version: tuple[int, int] | None = None
    """(1, 39) of MediaWiki 1.39.17, None if the wiki does not tell."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The wiki's own clock (ISO 8601) at the first request, and its newest entries of recentchanges and the logs."""

    clock: str
    changes: tuple[Json, ...]
    events: tuple[Json, ...]


class WikiClient:
    """One wiki, one session, one request at a time. `proxy` and `robots` as in Transport.

    `site`: as an earlier run found it; None: it is requested.
    """

    def __init__(
        self,
        source: Source,
        proxy: str | None = None,
        *,
        site: Site | None = None,
        journal: Journal | None = None,
        robots: RobotsCache | None = None,
    ) -> None:
        self.source = source
        self.transport = Transport(source, proxy, robots)
        self.api = Api(source.place, self.transport, journal)
        self._site = site
        self._has_exports = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.__exit__()

    @property
    def site(self) -> Site:
        """The wiki's API and namespaces. Raises WikiUnreachable if it has no API."""
        if self._site is None:
            self.greet()
        assert self._site is not None
        return self._site

    @property
    def namespaces(self) -> Namespaces:
        """The wiki's own names and words."""
        return self.site.namespaces

    def pages(self, params: Params) -> Iterator[Json]:
        """The pages of an `action=query`, each once; lists that came in several answers are joined.

        At most one batch of the generator is in memory.

        Raises WikiApiError, WikiBlocked, WikiUnreachable.
        """
        for batch, _ in self._batches(params, {}):
            yield from batch

    def pages_with_text(self, params: Params) -> Iterator[Json]:
        """`pages` of a generator, each with the content of its newest revision, as `CONTENT` would give it.

        A wiki with exports gives 500 pages in one answer; pages that are missing in it are requested in fifties.
        """
        for batch, exported in self._batches(params, {"export": 1} if self._has_exports else {}):
            yield from self._with_text(batch, exported)

    def pages_named(self, titles: Iterable[str], params: Params) -> Iterator[Json]:
        """`pages` of these titles, as many in a request as its address can hold."""
        for batch in _batched(titles):
            yield from self.pages({"titles": "|".join(batch), **params})

    def lists(self, params: Params) -> Json:
        """`list=...` of an `action=query`: {list name: all its entries}, with 'curtimestamp' of the first answer."""
        merged: Json = {}
        for answer in self._answers({"action": "query", "curtimestamp": 1, **params}):
            merged.setdefault("curtimestamp", answer.get("curtimestamp", ""))
            for name, entries in answer.get("query", {}).items():
                merged.setdefault(name, []).extend(entries)
        return merged

    def _batches(self, params: Params, first_params: Params) -> Iterator[tuple[list[Json], dict[int, ExportedPage]]]:
        batch: dict[str, Json] = {}
        texts: dict[int, ExportedPage] = {}
        for answer in self._answers({"action": "query", **params}, first_params):
            query = answer.get("query", {})
            for page in query.get("pages", ()):
                if "title" not in page:  # requested by the id of a deleted page
                    continue
                title = str(page["title"])
                batch[title] = _merged(batch[title], page) if title in batch else page
            if "export" in query:
                texts |= read_export(query["export"])
            if answer.get("batchcomplete"):
                yield list(batch.values()), texts
                batch, texts = {}, {}
        if batch:
            yield list(batch.values()), texts

    def _with_text(self, pages: list[Json], exported: Mapping[int, ExportedPage]) -> Iterator[Json]:
        """The pages with `revisions`; those that the export left out are requested by their ids."""
        ids = {int(page["pageid"]) for page in pages if "pageid" in page}
        if missing := sorted(ids - exported.keys()):
            if self._has_exports and not exported:
                log.info("%s exports no pages; they are requested in fifties", self.source.wiki)
                self._has_exports = False
            remaining = iter(missing)
            revisions: dict[int, list[Json]] = {}
            while batch := list(islice(remaining, PAGES_A_REQUEST)):
                for page in self.pages({"pageids": "|".join(map(str, batch)), **CONTENT}):
                    revisions[int(page["pageid"])] = page.get("revisions", [])
            # Take only their text: a page may have been moved between the two answers.
            pages = [{**page, "revisions": revisions.get(page.get("pageid", 0), [])} for page in pages]
        for page in pages:
            text = exported.get(page.get("pageid", 0))
            yield page if text is None else {**page, "revisions": [text.as_revision()]}

    def rendered(self, page: str) -> Json:
        """A page as HTML: {'title', 'pageid', 'revid', 'text': HTML, 'images': files it shows, 'templates': pages it
        includes}. Raises WikiApiError if the page is missing."""
        params: Params = {
            "action": "parse",
            "page": page,
            "prop": "text|revid|images|templates",
            "redirects": 1,
            "disableeditsection": 1,
            "disablelimitreport": 1,
            "disabletoc": 1,
        }
        try:
            answer = self._ask(params)
        except WikiApiError as error:
            if error.code == "missingtitle":
                raise WikiApiError(f"{self.source.wiki} has no page {page!r}: see source.pages", error.code) from error
            raise
        return dict(answer["parse"])

    def greet(self) -> Greeting:
        """The first request of a run that knows nothing of the wiki.

        It finds the API and the wiki's namespaces (`site`), and returns the wiki's time and newest changes.
        """
        self.source.check_politeness()
        for path in API_PATHS:
            try:
                answer = self._greeted(self.source.wiki + path)
            except ApiNotFound:
                continue
            query = answer.get("query", {})
            log.info("%s: %s", self.source.wiki, query.get("general", {}).get("generator", "an unknown wiki"))
            greeting.check_version(self.source.wiki, query)
            if untold := greeting.untold(query):
                log.warning("%s does not tell its %s; English ones are assumed", self.source.wiki, untold)
            self._site = Site(self.source.wiki + path, Namespaces.of_siteinfo(query), greeting.version_of(query))
            changes, events = query.get("recentchanges", ()), query.get("logevents", ())
            return Greeting(str(answer.get("curtimestamp", "")), tuple(changes), tuple(events))
        raise WikiUnreachable(
            f"{self.source.wiki} has neither {' nor '.join(API_PATHS)}: is source.wiki the address of a MediaWiki?"
        )

    def _greeted(self, api: str) -> Json:
        """The answer to the first request; a wiki that refuses to tell its language is asked without."""
        try:
            return self.api.ask(api, greeting.parameters(greeting.LANGUAGE))
        except WikiApiError as error:
            try:
                answer = self.api.ask(api, greeting.parameters(greeting.NAMESPACES_ONLY))
            except WikiApiError:
                raise error from None
            log.info("%s refuses to tell its language (%s)", self.source.wiki, error)
            return answer

    def _ask(self, params: Params) -> Json:
        """An answer. If the API is not where an earlier run found it any more, it is searched again."""
        version = self.site.version
        if version is not None and version < greeting.FIRST_WITH_SLOTS:
            params = {name: value for name, value in params.items() if name != "rvslots"}
        try:
            return self.api.ask(self.site.api, params)
        except ApiNotFound:
            log.info("%s is gone, searching for the API", self.site.api)
            self._site = None
            try:
                return self.api.ask(self.site.api, params)
            except ApiNotFound as error:
                raise unreachable(self.source.wiki, "has an API that appears and disappears") from error

    def _answers(self, params: Params, first_params: Params | None = None) -> Iterator[Json]:
        """All answers to a query. `first_params`: added to the first request of each batch of a generator only."""
        position: Params = {}
        extra = first_params or {}
        while True:
            answer = self._ask_with(params, position, extra)
            yield answer
            if "continue" not in answer:
                return
            if answer["continue"] == position:
                raise WikiApiError(f"{self.source.wiki} asks to continue where it was: {position}", "endless-continue")
            position = answer["continue"]
            extra = (first_params or {}) if answer.get("batchcomplete") and self._has_exports else {}

    def _ask_with(self, params: Params, position: Params, extra: Params) -> Json:
        """One answer. If the wiki refuses an export or fails on it, the query is made without."""
        try:
            return self._ask({**params, **extra, **position})
        except (WikiApiError, WikiUnreachable) as error:
            if not extra:
                raise
            log.info("%s does not export (%s)", self.source.wiki, error)
            self._has_exports = False
            return self._ask({**params, **position})


def _merged(page: Json, newer: Json) -> Json:
    """One page from two answers: lists are joined, other values are taken from the newer answer."""
    merged = dict(page)
    for key, value in newer.items():
        old = merged.get(key)
        if isinstance(old, list) and isinstance(value, list):
            merged[key] = old + [item for item in value if item not in old]
        else:
            merged[key] = value
    return merged


def _batched(titles: Iterable[str]) -> Iterator[list[str]]:
    """Titles in lists that one request can name."""
    batch: list[str] = []
    length = 0
    for title in titles:
        cost = len(quote_plus(title)) + 3
        if batch and (len(batch) == PAGES_A_REQUEST or length + cost > LONGEST_TITLES):
            yield batch
            batch, length = [], 0
        batch.append(title)
        length += cost
    if batch:
        yield batch
