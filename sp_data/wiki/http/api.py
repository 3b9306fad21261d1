"""One query to api.php: repeated if the answer breaks off or the wiki is busy; errors are raised.

MediaWiki answers nearly everything with HTTP 200: the JSON may still contain an `error`, and HTML instead of JSON comes
from a guard in front of the wiki (Cloudflare's, on Fandom). Each answer is kept in the journal, if there is one, until
the run is finished: a run that goes on after a kill repeats no query.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

from sp_data.errors import WikiApiError
from sp_data.wiki.http.journal import Journal
from sp_data.wiki.http.retries import check_wait
from sp_data.wiki.http.transport import BrokenOff, Transport, blocked, body_of, unreachable

log = logging.getLogger(__name__)

Json = dict[str, Any]
Params = Mapping[str, str | int]

MAXLAG_S = 5
BUSY = ("maxlag", "ratelimited")
"""Codes of API errors that mean 'try again later'."""
BUSY_TRIES = 8
BODY_TRIES = 3
"""How often a query is made whose answer breaks off."""


class ApiNotFound(Exception):
    """HTTP 404: the API is not at this address, e.g. at w/api.php instead of api.php. Never leaves sp_data.wiki."""


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

    def ask(self, api: str, params: Params) -> Json:
        """The answer to a query: the journal's if the query was made before in this run, else the wiki's."""
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
        full_params: Params = {**params, "format": "json", "formatversion": 2, "maxlag": MAXLAG_S}
        for _ in range(BUSY_TRIES):
            self.num_asked += 1
            answer, wait_s = self._get_json(api, full_params)
            self._warn(answer.get("warnings", {}))
            error = answer.get("error")
            if error is None:
                return answer
            code, info = str(error.get("code", "")), str(error.get("info", "")).split(". ")[0]
            if code not in BUSY:
                raise WikiApiError(f"{self._wiki} refuses {params['action']}: {info} ({code})", code)
            check_wait(wait_s)
            log.info("%s is busy (%s), waiting %d s", self._wiki, code, wait_s)
            time.sleep(wait_s)
        raise unreachable(api, f"stayed busy through {BUSY_TRIES} tries")

    def _get_json(self, api: str, params: Params) -> tuple[Json, int]:
        """An answer, and how many seconds to wait if it says that the wiki is busy."""
        for _ in range(BODY_TRIES):
            with self._transport.get(api, params) as response:
                if response.status_code == 404:
                    raise ApiNotFound(api)
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
                return answer, _retry_after_s(response)
        raise unreachable(api, f"broke off {BODY_TRIES} times in the middle of an answer")

    def _warn(self, warnings: Mapping[str, Any]) -> None:
        for module, warning in warnings.items():
            text = f"{module}: {warning.get('warnings', warning) if isinstance(warning, dict) else warning}"
            if text not in self._warned:
                self._warned.add(text)
                log.warning("%s warns: %s", self._wiki, text)


def _read_json(body: bytes) -> Any:
    """The JSON in `body`. Lone surrogates (such as \\ud83d), which cannot be written to a file, become '\ufffd'.

    Raises ValueError.
    """
    answer = json.loads(body)
    return _without_lone_surrogates(answer) if b"\\ud" in body.lower() else answer


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


def _retry_after_s(response: requests.Response) -> int:
    after = response.headers.get("Retry-After", "")
    return int(after) if after.isdecimal() else MAXLAG_S
