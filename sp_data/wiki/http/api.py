"""One question to api.php, until it is answered: broken answers asked for again, a busy wiki waited for, errors told.

MediaWiki answers nearly everything with HTTP 200: an `error` inside is an error all the same, and HTML where JSON was
due is a guard that stands before the wiki (Cloudflare's, on Fandom). Each answer is kept in the journal, if there is
one, until the run is through: a run that is killed asks nothing twice.
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
from sp_data.wiki.http.politeness import check_wait
from sp_data.wiki.http.transport import BrokenOff, Transport, blocked, body_of, unreachable

log = logging.getLogger(__name__)

Json = dict[str, Any]
Params = Mapping[str, str | int]

MAXLAG_S = 5
BUSY = ("maxlag", "ratelimited")
"""Codes of API errors that mean 'later'."""
BUSY_TRIES = 8
BODY_TRIES = 3
"""How often an answer that broke off is asked for again."""


class NoSuchPlace(Exception):
    """HTTP 404: tells api.php from w/api.php. Never leaves sp_data.wiki."""


class Api:
    """Asks one wiki; `wiki` is how errors call it."""

    def __init__(self, wiki: str, transport: Transport, journal: Journal | None) -> None:
        self.num_asked = 0
        """Requests, without those that the journal answered."""
        self.on_answer: Callable[[], None] | None = None
        """Told after each answer."""
        self._wiki = wiki
        self._transport = transport
        self._journal = journal
        self._warned: set[str] = set()

    def ask(self, api: str, params: Params) -> Json:
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
                raise WikiApiError(f"{self._wiki} refuses {params['action']}: {info} ({code})", code)
            check_wait(wait_s)
            log.info("%s is busy (%s), waiting %d s", self._wiki, code, wait_s)
            time.sleep(wait_s)
        raise unreachable(api, f"stayed busy through {BUSY_TRIES} tries")

    def _get_json(self, api: str, params: Params) -> tuple[Json, int]:
        """An answer, and how long (s) the wiki asks to wait, should it be a refusal."""
        for _ in range(BODY_TRIES):
            with self._transport.get(api, params) as response:
                if response.status_code == 404:
                    raise NoSuchPlace(api)
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
                log.warning("%s warns: %s", self._wiki, text)


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
