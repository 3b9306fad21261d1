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

from sp_data.errors import WikiApiError, WikiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki.http import greeting
from sp_data.wiki.http.answers import Json, OddAnswer, entries, one_line, query_of
from sp_data.wiki.http.api import Api, ApiNotFound, Params
from sp_data.wiki.http.api_path import API_PATHS, api_addresses, api_named_in, wikis_around
from sp_data.wiki.http.failures import unreachable
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.listing import Listing
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.http.transport import BrokenOff, Transport, body_of
from sp_data.wiki.http.xml_export import ExportedPage, read_export
from sp_data.wiki.parse.titles import Namespaces

log = logging.getLogger(__name__)

PAGES_A_REQUEST = 50
"""MediaWiki's limit for named pages, and for pages with their content."""
PAGES_AN_EXPORT = 500
"""MediaWiki's limit for generators."""
LONGEST_TITLES = 5000
"""Characters that titles may take in an address; servers refuse addresses of more than 8 KB."""
MAX_PAGE_BYTES = 1 << 20
"""How much of a page is read to find the API that it names."""
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
        self._not_found: WikiError | None = None

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
            for name, listed in query_of(answer, self.source.wiki).items():
                merged.setdefault(name, []).extend(entries(listed, self.source.wiki, name))
        return merged

    def _batches(self, params: Params, first_params: Params) -> Iterator[tuple[list[Json], dict[int, ExportedPage]]]:
        batch: dict[str, Json] = {}
        texts: dict[int, ExportedPage] = {}
        listing = Listing(self.source.wiki)
        for answer in self._answers({"action": "query", **params}, first_params):
            query = query_of(answer, self.source.wiki)
            for page in entries(query.get("pages"), self.source.wiki, "pages"):
                if "title" not in page:  # requested by the id of a deleted page
                    continue
                if not isinstance(title := page["title"], str):
                    raise OddAnswer(self.source.wiki, f"the title of a page is {title!r}")
                if not isinstance(page.get("pageid", 0), int):
                    raise OddAnswer(self.source.wiki, f"the number of the page {title!r} is {page['pageid']!r}")
                batch[title] = _merged(batch[title], page) if title in batch else page
            if "export" in query:
                if not isinstance(export := query["export"], str):
                    raise OddAnswer(self.source.wiki, f"its export is {export!r}")
                texts |= read_export(export)
            if answer.get("batchcomplete"):
                listing.take_batch(batch)
                yield list(batch.values()), texts
                batch, texts = {}, {}
        if batch:
            yield list(batch.values()), texts

    def _with_text(self, pages: list[Json], exported: Mapping[int, ExportedPage]) -> Iterator[Json]:
        """The pages with `revisions`; those that the export left out are requested by their ids."""
        ids = {int(page["pageid"]) for page in pages if page.get("pageid") is not None}
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
        if not isinstance(parsed := answer.get("parse"), dict):
            raise OddAnswer(self.source.wiki, f"it has no HTML of {page!r}")
        return parsed

    def greet(self) -> Greeting:
        """The first request of a run that knows nothing of the wiki.

        It finds the API and the wiki's namespaces (`site`), and returns the wiki's time and newest changes.
        """
        self.source.check_politeness()
        wiki = self.source.wiki
        found = self._first_api(api_addresses(wiki))
        if found is None:
            raise self._no_api()
        api, answer = found
        query = query_of(answer, wiki)
        general = query.get("general")
        log.info(
            "%s: %s", wiki, one_line((isinstance(general, dict) and general.get("generator")) or "an unknown wiki")
        )
        greeting.check_version(wiki, query)
        if untold := greeting.untold(query):
            log.warning("%s does not tell its %s; English ones are assumed", wiki, untold)
        self._site = Site(api, Namespaces.of_siteinfo(query), greeting.version_of(query))
        changes, events = (entries(query.get(name), wiki, name) for name in ("recentchanges", "logevents"))
        return Greeting(str(answer.get("curtimestamp", "")), tuple(changes), tuple(events))

    def _first_api(self, addresses: Iterable[str]) -> tuple[str, Json] | None:
        """The first address with an API, and its answer; None if there is none."""
        for api in addresses:
            try:
                return api, self._greeted(api)
            except ApiNotFound as error:
                self._not_found = self._not_found or error.error
            except WikiUnreachable as error:
                # Another path of a host that did answer: what the host said there tells more.
                if self._not_found is None:
                    raise
                log.info("%s: %s", api, error)
        return None

    def _no_api(self) -> WikiError:
        """Why the wiki has no API; if its address is that of a page, the sentence names the wiki's."""
        wiki = self.source.wiki
        nothing = f"{wiki} has neither {' nor '.join(API_PATHS)}"
        nearby = (address for around in wikis_around(wiki) for address in api_addresses(around))
        if (found := self._first_api(nearby)) is not None:
            api = found[0]
        elif (named := self._api_named_by_page()) is not None and self._first_api([named]) is not None:
            api = named
        elif self._not_found is not None:
            return self._not_found
        else:
            return WikiUnreachable(f"{nothing}: is source.wiki the address of a MediaWiki?")
        right = next((api.removesuffix(path) for path in reversed(API_PATHS) if api.endswith(path)), api)
        return WikiUnreachable(f"{nothing}; the wiki's own address is another one, set it: --set source.wiki={right}")

    def _api_named_by_page(self) -> str | None:
        wiki = self.source.wiki
        try:
            with self.transport.get(wiki, {}) as response:
                page = body_of(response, MAX_PAGE_BYTES, cut=True).decode("utf-8", "replace")
                return api_named_in(page, str(response.url))
        except (BrokenOff, WikiError) as error:
            log.info("%s names no API: %s", wiki, error)
            return None

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
                if error.error is not None:
                    raise error.error from error
                raise unreachable(self.source.wiki, "has an API that appears and disappears") from error

    def _answers(self, params: Params, first_params: Params | None = None) -> Iterator[Json]:
        """All answers to a query. `first_params`: added to the first request of each batch of a generator only."""
        position: Params = {}
        extra = first_params or {}
        listing = Listing(self.source.wiki)
        while True:
            answer = self._ask_with(params, position, extra)
            yield answer
            if "continue" not in answer:
                return
            listing.take_answer(query_of(answer, self.source.wiki), completes_batch="batchcomplete" in answer)
            position = listing.position_after(answer["continue"], position)
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
