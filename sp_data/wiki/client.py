"""The wiki's API: `continue` followed and merged, `error` inside a 200 raised, a busy wiki waited for.

    with WikiClient(source) as client:
        for page in client.pages({"generator": "allimages", "gailimit": "max", "prop": "imageinfo"}):
            ...                                   # {'pageid': 8, 'title': 'File:Ada Birch.png', 'imageinfo': [...]}

MediaWiki answers nearly everything with HTTP 200: an `error` inside is an error all the same, and HTML where JSON was
due is a guard that stands before the wiki (Cloudflare's, on Fandom). Each answer is kept in the journal, if there is
one, until the run is through: a run that is killed asks nothing twice.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self
from urllib.parse import quote_plus

import requests

from sp_data.errors import WikiApiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki.exported import Exported, read_export
from sp_data.wiki.journal import Journal
from sp_data.wiki.manners import RobotsCache, check_wait
from sp_data.wiki.titles import Namespaces
from sp_data.wiki.transport import BrokenOff, Transport, blocked, body_of, unreachable

log = logging.getLogger(__name__)

Json = dict[str, Any]
Params = Mapping[str, str | int]

API_PATHS = ("/api.php", "/w/api.php")
MAXLAG_S = 5
BUSY = ("maxlag", "ratelimited")
"""Codes of API errors that mean 'later'."""
BUSY_TRIES = 8
BODY_TRIES = 3
"""How often an answer that broke off is asked for again."""


PAGES_A_REQUEST = 50
"""MediaWiki's limit where pages are named, and where their content is asked for."""
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


class _NoSuchPlace(Exception):
    """HTTP 404: tells api.php from w/api.php."""


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
        self.num_asked = 0
        """API requests, without those that the journal answered."""
        self.on_answer: Callable[[], None] | None = None
        """Told after each answer."""
        self._journal = journal
        self._site = site
        self._exports = True
        self._warned: set[str] = set()

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

    def _batches(self, params: Params, once: Params) -> Iterator[tuple[list[Json], dict[int, Exported]]]:
        batch: dict[str, Json] = {}
        texts: dict[int, Exported] = {}
        for answer in self._answers({"action": "query", **params}, once):
            query = answer.get("query", {})
            for page in query.get("pages", ()):
                title = str(page["title"])
                batch[title] = _merged(batch[title], page) if title in batch else page
            if "export" in query:
                texts |= read_export(query["export"])
            if answer.get("batchcomplete"):
                yield list(batch.values()), texts
                batch, texts = {}, {}
        if batch:
            yield list(batch.values()), texts

    def _with_text(self, pages: list[Json], exported: Mapping[int, Exported]) -> Iterator[Json]:
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
            answer = self._ask(self.site.api, params)
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
                answer = self._ask(self.source.wiki + path, params)
            except _NoSuchPlace:
                continue
            query = answer.get("query", {})
            log.info("%s: %s", self.source.wiki, query.get("general", {}).get("generator", "an unknown wiki"))
            self._site = Site(self.source.wiki + path, Namespaces.of_siteinfo(query))
            changes, events = query.get("recentchanges", ()), query.get("logevents", ())
            return Greeting(str(answer.get("curtimestamp", "")), tuple(changes), tuple(events))
        raise WikiUnreachable(
            f"{self.source.wiki} has neither {' nor '.join(API_PATHS)}: is source.wiki the address of a MediaWiki?"
        )

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
            return self._ask(self.site.api, {**params, **extra, **goes_on})
        except (WikiApiError, WikiUnreachable) as error:
            if not extra:
                raise
            log.info("%s does not export (%s)", self.source.wiki, error)
            self._exports = False
            return self._ask(self.site.api, {**params, **goes_on})

    def _ask(self, api: str, params: Params) -> Json:
        """An answer of the wiki, or of the journal if it was given before in this run."""
        key = {"api": api, **params}
        answer = self._journal.find(key) if self._journal else None
        if answer is None:
            answer = self._ask_wiki(api, params)
            if self._journal:
                self._journal.keep(key, answer)
        if self.on_answer:
            self.on_answer()
        return dict(answer)

    def _ask_wiki(self, api: str, params: Params) -> Json:
        whole: Params = {**params, "format": "json", "formatversion": 2, "maxlag": MAXLAG_S}
        for _ in range(BUSY_TRIES):
            self.num_asked += 1
            answer, wait_s = self._get_json(api, whole)
            self._warn(answer.get("warnings", {}))
            error = answer.get("error")
            if error is None:
                return answer
            code, info = str(error.get("code", "")), str(error.get("info", "")).split(". ")[0]
            if code not in BUSY:
                raise WikiApiError(f"{self.source.wiki} refuses {params['action']}: {info} ({code})", code)
            check_wait(wait_s)
            log.info("%s is busy (%s), waiting %d s", self.source.wiki, code, wait_s)
            time.sleep(wait_s)
        raise unreachable(api, f"stayed busy through {BUSY_TRIES} tries")

    def _get_json(self, api: str, params: Params) -> tuple[Json, int]:
        """An answer, and how long (s) the wiki asks to wait, should it be a refusal."""
        for _ in range(BODY_TRIES):
            with self.transport.get(api, params) as response:
                if response.status_code == 404:
                    raise _NoSuchPlace(api)
                is_json = "json" in response.headers.get("Content-Type", "").lower()
                if not is_json:
                    raise blocked(api, f"answers HTTP {response.status_code} with a web page instead of JSON")
                try:
                    answer = _read_json(body_of(response))
                except (BrokenOff, ValueError) as error:
                    log.info("%s broke off in the middle of an answer (%s), asking again", api, error)
                    continue
                if not isinstance(answer, dict):
                    raise blocked(api, "answers with JSON that is not MediaWiki's")
                return answer, _seconds(response)
        raise unreachable(api, f"broke off {BODY_TRIES} times in the middle of an answer")

    def _warn(self, warnings: Mapping[str, Any]) -> None:
        for module, said in warnings.items():
            text = f"{module}: {said.get('warnings', said) if isinstance(said, dict) else said}"
            if text not in self._warned:
                self._warned.add(text)
                log.warning("%s warns: %s", self.source.wiki, text)


def _read_json(body: bytes) -> Any:
    """Raises ValueError. Half characters (\\ud83d alone), which no file and no table can hold, become '\ufffd'."""
    answer = json.loads(body)
    return _whole(answer) if b"\\ud" in body.lower() else answer


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _seconds(response: requests.Response) -> int:
    after = response.headers.get("Retry-After", "")
    return int(after) if after.isdecimal() else MAXLAG_S


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
