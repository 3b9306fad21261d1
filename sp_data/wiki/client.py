"""The wiki's API: `continue` followed and merged, `error` inside a 200 raised, a busy wiki waited for.

    with WikiClient(source) as client:
        for page in client.pages({"generator": "allimages", "gailimit": "max", "prop": "imageinfo"}):
            ...                                   # {'pageid': 8, 'title': 'File:Ada Birch.png', 'imageinfo': [...]}

MediaWiki answers nearly everything with HTTP 200: an `error` inside is an error all the same, and HTML where JSON was
due is a guard that stands before the wiki (Cloudflare's, on Fandom).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import requests

from sp_data.errors import WikiApiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki.manners import check_wait
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


@dataclass(frozen=True, slots=True)
class _Found:
    api: str
    namespaces: Namespaces


class _NoSuchPlace(Exception):
    """HTTP 404: tells api.php from w/api.php."""


class WikiClient:
    """One wiki, one session, one request at a time. `proxy` as in Transport."""

    def __init__(self, source: Source, proxy: str | None = None) -> None:
        self.source = source
        self.transport = Transport(source, proxy)
        self._found: _Found | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.__exit__()

    @property
    def namespaces(self) -> Namespaces:
        """What the wiki calls its files and categories."""
        return self._find().namespaces

    def pages(self, params: Params) -> Iterator[Json]:
        """The pages of an `action=query`, each once, with lists that came in several answers (such as categories)
        joined. At most one batch of the generator is held.

        Raises WikiApiError, WikiBlocked, WikiUnreachable.
        """
        batch: dict[str, Json] = {}
        for answer in self._answers({"action": "query", **params}):
            for page in answer.get("query", {}).get("pages", ()):
                title = str(page["title"])
                batch[title] = _merged(batch[title], page) if title in batch else page
            if answer.get("batchcomplete"):
                yield from batch.values()
                batch = {}
        yield from batch.values()

    def rendered(self, page: str) -> Json:
        """A page as readers see it: {'title', 'pageid', 'revid', 'text': HTML}. Raises WikiApiError if missing."""
        params: Params = {
            "action": "parse",
            "page": page,
            "prop": "text|revid",
            "redirects": 1,
            "disableeditsection": 1,
            "disablelimitreport": 1,
            "disabletoc": 1,
        }
        try:
            answer = self._ask(self._find().api, params)
        except WikiApiError as error:
            if error.code == "missingtitle":
                raise WikiApiError(f"{self.source.wiki} has no page {page!r}: see source.pages", error.code) from error
            raise
        return dict(answer["parse"])

    def _answers(self, params: Params) -> Iterator[Json]:
        goes_on: Params = {}
        while True:
            answer = self._ask(self._find().api, {**params, **goes_on})
            yield answer
            if "continue" not in answer:
                return
            if answer["continue"] == goes_on:
                raise WikiApiError(f"{self.source.wiki} asks to continue where it was: {goes_on}", "endless-continue")
            goes_on = answer["continue"]

    def _find(self) -> _Found:
        """api.php's address, asked for once, together with the names of the wiki's namespaces."""
        if self._found is None:
            self.source.check_manners()
            params: Params = {
                "action": "query",
                "meta": "siteinfo",
                "siprop": "general|namespaces|namespacealiases",
            }
            for path in API_PATHS:
                try:
                    query = self._ask(self.source.wiki + path, params).get("query", {})
                except _NoSuchPlace:
                    continue
                log.info("%s: %s", self.source.wiki, query.get("general", {}).get("generator", "an unknown wiki"))
                self._found = _Found(self.source.wiki + path, Namespaces.of_siteinfo(query))
                return self._found
            raise WikiUnreachable(
                f"{self.source.wiki} has neither {' nor '.join(API_PATHS)}: is source.wiki the address of a MediaWiki?"
            )
        return self._found

    def _ask(self, api: str, params: Params) -> Json:
        whole: Params = {**params, "format": "json", "formatversion": 2, "maxlag": MAXLAG_S}
        for _ in range(BUSY_TRIES):
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
                    answer = json.loads(body_of(response))
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
