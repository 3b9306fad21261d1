"""One query to api.php: repeated if the answer breaks off or the wiki is busy; errors are raised.

MediaWiki answers nearly everything with HTTP 200: the JSON may still contain an `error`, and HTML instead of JSON comes
from a guard in front of the wiki (Cloudflare's, on Fandom), or from something that is no API. Each answer is kept in
the journal, if there is one, until the run is finished: a run that goes on after a kill repeats no query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

from sp_data.errors import WikiApiError, WikiBlocked, WikiError, WikiUnreachable
from sp_data.wiki.http.answers import Json, OddAnswer, one_line, read_embedded_json, read_json
from sp_data.wiki.http.failures import RESUME_HINT, blocked, is_challenge, unreachable
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.retries import check_wait
from sp_data.wiki.http.transport import BrokenOff, Transport, body_of

log = logging.getLogger(__name__)

Params = Mapping[str, str | int]

MAXLAG_S = 5
BUSY = ("maxlag", "ratelimited")
"""Codes of API errors that mean 'try again later'."""
BUSY_TRIES = 8
BODY_TRIES = 3
"""How often a query is made whose answer breaks off."""
MAX_BYTES_A_RUN = 16 << 30
"""All answers of a run together, unpacked: 10 million files take less."""
NOT_A_WIKI = "Not_a_valid_community"
"""Fandom sends every request for a wiki that does not exist to a page of this name."""
_CURES = {
    "readapidenied": "it is a private wiki, which only its members may read; sp-data reads public wikis only",
    "apidisabled": "its owners have switched the API off; ask them",
    "module-disabled": "its owners have switched that off; ask them",
    "blocked": "the wiki has blocked this machine's address; ask its owners",
    "autoblocked": "the wiki has blocked this machine's address; ask its owners",
    "permissiondenied": "only users with more rights may ask for that; ask the wiki's owners",
    "internal_api_error": "it is a fault of the wiki; run the same command again, or tell its owners",
}
"""Code of an API error, up to the first '_class' -> what it means, and what to do."""


class ApiNotFound(Exception):
    """There is no API at this address. `error`: what the caller shall raise if there is none elsewhere either; None if
    the address simply has nothing (HTTP 404). Never leaves sp_data.wiki."""

    def __init__(self, api: str, error: WikiError | None = None) -> None:
        super().__init__(api)
        self.error = error


class Api:
    """The API of one wiki. `wiki`: its name in errors."""

    def __init__(self, wiki: str, transport: Transport, journal: Journal | None) -> None:
        self.num_asked = 0
        """Number of requests to the wiki; queries that the journal answered do not count."""
        self.on_answer: Callable[[], None] | None = None
        """Called after each answer."""
        self._wiki = wiki
        self._transport = transport
        self._journal = journal
        self._warned: set[str] = set()
        self._num_bytes = 0

    def ask(self, api: str, params: Params) -> Json:
        """The answer to a query: the journal's if the query was made before in this run, else the wiki's.

        Raises ApiNotFound, WikiApiError, WikiBlocked, WikiUnreachable.
        """
        key = {"api": api, **params}
        answer = self._journal.find(key) if self._journal else None
        if answer is None:
            answer = self._ask_wiki(api, params)
            if self._journal:
                try:
                    self._journal.keep(key, answer)
                except RecursionError as error:
                    raise OddAnswer(self._wiki, "it is nested too deeply") from error
        if self.on_answer:
            self.on_answer()
        return dict(answer)

    def _ask_wiki(self, api: str, params: Params) -> Json:
        full_params: Params = {**params, "format": "json", "formatversion": 2, "maxlag": MAXLAG_S}
        for _ in range(BUSY_TRIES):
            self.num_asked += 1
            answer, wait_s = self._get_json(api, full_params)
            self._warn(answer.get("warnings"))
            error = answer.get("error")
            if error is None:
                return answer
            if not isinstance(error, dict):
                raise OddAnswer(self._wiki, f"its error is {error!r}")
            code, info = one_line(error.get("code", "")), one_line(error.get("info", "")).split(". ")[0]
            if code not in BUSY:
                cure = next((cure for start, cure in _CURES.items() if code.startswith(start)), "")
                sentence = f"{self._wiki} refuses {params['action']}: {info} ({code})"
                raise WikiApiError(f"{sentence}; {cure}" if cure else sentence, code)
            check_wait(wait_s)
            log.info("%s is busy (%s), waiting %d s", self._wiki, code, wait_s)
            time.sleep(wait_s)
        raise unreachable(api, f"stayed busy through {BUSY_TRIES} tries")

    def _get_json(self, api: str, params: Params) -> tuple[Json, float]:
        """An answer, and how many seconds to wait if it says that the wiki is busy."""
        behaviour = ""
        for _ in range(BODY_TRIES):
            with self._transport.get(api, params) as response:
                self._check_status(api, response)
                try:
                    body = body_of(response)
                    self._count(body)
                    answer = self._read(api, response, body)
                except (BrokenOff, ValueError) as error:
                    behaviour = one_line(error)
                    log.info("%s broke off in the middle of an answer (%s), asking again", api, behaviour)
                    continue
                except RecursionError as error:
                    raise OddAnswer(self._wiki, "it is nested too deeply") from error
                if not isinstance(answer, dict):
                    raise _not_mediawiki(api, "answers with JSON that is not MediaWiki's")
                return answer, _retry_after_s(response)
        raise unreachable(api, f"broke off {BODY_TRIES} times in the middle of an answer")

    def _check_status(self, api: str, response: requests.Response) -> None:
        """Raises ApiNotFound if the status, or where the request was sent to, says that there is no API."""
        status, at = response.status_code, str(response.url)
        if NOT_A_WIKI in at:
            raise WikiUnreachable(f"{self._wiki} does not exist (any more): Fandom has no wiki of that name")
        if status == 404:
            raise ApiNotFound(api)
        if status == 410:
            gone = WikiUnreachable(f"{self._wiki} does not exist any more (HTTP 410): the wiki was closed")
            raise ApiNotFound(api, gone)

    def _read(self, api: str, response: requests.Response, body: bytes) -> Any:
        """The JSON of an answer. Raises ValueError if it breaks off, ApiNotFound, WikiBlocked."""
        kind = response.headers.get("Content-Type", "").lower()
        begins_as_json = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
        if begins_as_json:
            answer = read_json(body)
            if "json" in kind:
                return answer
        elif is_challenge(response.headers, body):
            raise blocked(
                api, f"answers HTTP {response.status_code} with a web page instead of JSON, which is a challenge"
            )
        elif "json" in kind and not body.lstrip().startswith(b"<"):
            raise ValueError("no JSON")
        else:
            try:
                answer = read_embedded_json(body)
            except ValueError as error:
                raise ApiNotFound(api, self._instead_of_json(api, response.status_code, body)) from error
        self._say_once(f"{self._wiki} sends its answers with something before them, or as another type than JSON")
        return answer

    def _instead_of_json(self, api: str, status: int, body: bytes) -> WikiError:
        if b"MediaWiki API is not enabled" in body:
            return WikiBlocked(f"{self._wiki} has switched its API off; ask its owners")
        if status == 400 and b"plain HTTP request was sent to HTTPS port" in body:
            return unreachable(api, "speaks TLS at this port; does its address begin with https:// instead?")
        if status == 401:
            return WikiBlocked(f"{self._wiki} asks for a login (HTTP 401); sp-data reads public wikis only")
        if status == 403:
            return WikiBlocked(
                f"{self._wiki} does not let anybody, or this machine, use its API ({api} answers HTTP 403); "
                "its owners may have switched it off: ask them"
            )
        return _not_mediawiki(api, f"answers HTTP {status} with a web page instead of JSON")

    def _count(self, body: bytes) -> None:
        self._num_bytes += len(body)
        if self._num_bytes > MAX_BYTES_A_RUN:
            raise OddAnswer(self._wiki, f"its answers have more than {MAX_BYTES_A_RUN >> 30} GB")

    def _warn(self, warnings: object) -> None:
        if isinstance(warnings, dict):
            for module, warning in warnings.items():
                text = warning.get("warnings", warning) if isinstance(warning, dict) else warning
                self._say_once(f"{self._wiki} warns: {one_line(module)}: {one_line(text)}")

    def _say_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)


def _not_mediawiki(api: str, behaviour: str) -> WikiBlocked:
    return WikiBlocked(f"{api} {behaviour}; is source.wiki the address of a MediaWiki? If it is, {RESUME_HINT} later")


def _retry_after_s(response: requests.Response) -> float:
    after = response.headers.get("Retry-After", "").strip()
    if not after.isdecimal():
        return MAXLAG_S
    return float(after) if len(after) < 10 else float("inf")
