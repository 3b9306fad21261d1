"""What is asked of a wiki: pages with their lists joined and their wikitext, lists of changes, a page's HTML.

    with WikiClient(source) as client:
        for page in client.pages({"generator": "allimages", "gailimit": "max", "prop": "imageinfo"}):
            ...                                   # {'pageid': 8, 'title': 'File:Ada Birch.png', 'imageinfo': [...]}

`continue` is followed to its end, whatever the size of an answer. api.py asks the single question.
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
from sp_data.wiki.http.api import Api, Json, NoSuchPlace, Params
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.http.transport import Transport, unreachable
from sp_data.wiki.http.xml_export import ExportedPage, read_export
from sp_data.wiki.parse.titles import Namespaces

log = logging.getLogger(__name__)

API_PATHS = ("/api.php", "/w/api.php")
PAGES_A_REQUEST = 50
"""MediaWiki's limit where pages are named, and where their content is asked for."""
PAGES_AN_EXPORT = 500
"""MediaWiki's limit for generators."""
LONGEST_TITLES = 5000
"""Characters of an address that titles may take; servers refuse those of more than 8 KB."""
CONTENT: Params = {"prop": "revisions", "rvprop": "content|ids", "rvslots": "main"}


@dataclass(frozen=True, slots=True)
class Site:
    """What is asked of a wiki once: where its API is and what it calls its files and categories."""

    api: str
    namespaces: Namespaces


@dataclass(frozen=True, slots=True)
class Greeting:
    """The wiki's own clock (ISO 8601) at the first request, and its newest entries of recentchanges and the logs."""

    clock: str
    changes: tuple[Json, ...]
    events: tuple[Json, ...]


class WikiClient:
    """One wiki, one session, one request at a time. `proxy` and `robots` as in Transport.

    `site`: what an earlier run found out, so that it is not asked again.
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
        self._exports = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.__exit__()

    @property
    def site(self) -> Site:
        """Where the wiki's API is. Raises WikiUnreachable if it has none."""
        if self._site is None:
            self.greet()
        assert self._site is not None
        return self._site

    @property
    def namespaces(self) -> Namespaces:
        """What the wiki calls its files and categories."""
        return self.site.namespaces

    def pages(self, params: Params) -> Iterator[Json]:
        """The pages of an `action=query`, each once, with lists that came in several answers (such as categories)
        joined. At most one batch of the generator is held.

        Raises WikiApiError, WikiBlocked, WikiUnreachable.
        """
        for batch, _ in self._batches(params, {}):
            yield from batch

    def pages_with_text(self, params: Params) -> Iterator[Json]:
        """`pages` of a generator, each with the content of its newest revision, as `CONTENT` would give it.

        A wiki that exports gives 500 pages in one answer; what is missing there is asked for 50 by 50.
        """
        for batch, exported in self._batches(params, {"export": 1} if self._exports else {}):
            yield from self._with_text(batch, exported)

    def pages_named(self, titles: Iterable[str], params: Params) -> Iterator[Json]:
        """`pages` of these titles, as many a request as an address holds."""
        for some in _batched(titles):
            yield from self.pages({"titles": "|".join(some), **params})

    def lists(self, params: Params) -> Json:
        """`list=...` of an `action=query`: {list's name: all its entries} and 'curtimestamp' of the first answer."""
        merged: Json = {}
        for answer in self._answers({"action": "query", "curtimestamp": 1, **params}):
            merged.setdefault("curtimestamp", answer.get("curtimestamp", ""))
            for name, entries in answer.get("query", {}).items():
                merged.setdefault(name, []).extend(entries)
        return merged

    def _batches(self, params: Params, once: Params) -> Iterator[tuple[list[Json], dict[int, ExportedPage]]]:
        batch: dict[str, Json] = {}
        texts: dict[int, ExportedPage] = {}
        for answer in self._answers({"action": "query", **params}, once):
            query = answer.get("query", {})
            for page in query.get("pages", ()):
                if "title" not in page:  # asked for by an id that is gone
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
        """The pages with `revisions`; those that the export left out are asked for by their ids."""
        ids = {int(page["pageid"]) for page in pages if "pageid" in page}
        if left := sorted(ids - exported.keys()):
            if self._exports and not exported:
                log.info("%s exports no pages; they are read in fifties", self.source.wiki)
                self._exports = False
            asked = iter(left)
            more: dict[int, list[Json]] = {}
            while some := list(islice(asked, PAGES_A_REQUEST)):
                for page in self.pages({"pageids": "|".join(map(str, some)), **CONTENT}):
                    more[int(page["pageid"])] = page.get("revisions", [])
            # Only their text: between the two answers a page may have been moved.
            pages = [{**page, "revisions": more.get(page.get("pageid", 0), [])} for page in pages]
        for page in pages:
            text = exported.get(page.get("pageid", 0))
            yield page if text is None else {**page, "revisions": [text.as_revision()]}

    def rendered(self, page: str) -> Json:
        """A page as readers see it: {'title', 'pageid', 'revid', 'text': HTML, 'images': files it shows, 'templates':
        pages it includes}. Raises WikiApiError if missing."""
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
        """The first request of a run that knows nothing of the wiki: where its API is, its names for things, the time
        there, and what changed last."""
        self.source.check_manners()
        params: Params = {
            "action": "query",
            "meta": "siteinfo",
            "siprop": "general|namespaces|namespacealiases",
            "list": "recentchanges|logevents",
            "rcprop": "ids|timestamp",
            "rctype": "edit|new|log",
            "rclimit": "max",
            "leprop": "ids|timestamp",
            "lelimit": "max",
            "curtimestamp": 1,
        }
        for path in API_PATHS:
            try:
                answer = self.api.ask(self.source.wiki + path, params)
            except NoSuchPlace:
                continue
            query = answer.get("query", {})
            log.info("%s: %s", self.source.wiki, query.get("general", {}).get("generator", "an unknown wiki"))
            self._site = Site(self.source.wiki + path, Namespaces.of_siteinfo(query))
            changes, events = query.get("recentchanges", ()), query.get("logevents", ())
            return Greeting(str(answer.get("curtimestamp", "")), tuple(changes), tuple(events))
        raise WikiUnreachable(
            f"{self.source.wiki} has neither {' nor '.join(API_PATHS)}: is source.wiki the address of a MediaWiki?"
        )

    def _ask(self, params: Params) -> Json:
        """An answer. An API that is no more where an earlier run found it is looked for again."""
        try:
            return self.api.ask(self.site.api, params)
        except NoSuchPlace:
            log.info("%s is gone, looking for the API again", self.site.api)
            self._site = None
            try:
                return self.api.ask(self.site.api, params)
            except NoSuchPlace as error:
                raise unreachable(self.source.wiki, "has an API that comes and goes") from error

    def _answers(self, params: Params, once: Params | None = None) -> Iterator[Json]:
        """All answers to a question; `once` goes with the first question of each batch of a generator only."""
        goes_on: Params = {}
        extra = once or {}
        while True:
            answer = self._ask_with(params, goes_on, extra)
            yield answer
            if "continue" not in answer:
                return
            if answer["continue"] == goes_on:
                raise WikiApiError(f"{self.source.wiki} asks to continue where it was: {goes_on}", "endless-continue")
            goes_on = answer["continue"]
            extra = (once or {}) if answer.get("batchcomplete") and self._exports else {}

    def _ask_with(self, params: Params, goes_on: Params, extra: Params) -> Json:
        """One answer. A wiki that refuses an export, or breaks over it, is asked without."""
        try:
            return self._ask({**params, **extra, **goes_on})
        except (WikiApiError, WikiUnreachable) as error:
            if not extra:
                raise
            log.info("%s does not export (%s)", self.source.wiki, error)
            self._exports = False
            return self._ask({**params, **goes_on})


def _merged(page: Json, more: Json) -> Json:
    """One page out of two answers: lists grow, anything else is the newer answer's."""
    whole = dict(page)
    for key, value in more.items():
        old = whole.get(key)
        if isinstance(old, list) and isinstance(value, list):
            whole[key] = old + [item for item in value if item not in old]
        else:
            whole[key] = value
    return whole


def _batched(titles: Iterable[str]) -> Iterator[list[str]]:
    """Titles in lists that one request can name."""
    some: list[str] = []
    length = 0
    for title in titles:
        cost = len(quote_plus(title)) + 3
        if some and (len(some) == PAGES_A_REQUEST or length + cost > LONGEST_TITLES):
            yield some
            some, length = [], 0
        some.append(title)
        length += cost
    if some:
        yield some
