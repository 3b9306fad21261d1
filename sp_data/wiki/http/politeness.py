"""Manners towards a wiki: how fast to ask, when to ask again, what robots.txt says, and which hosts not to touch."""

from __future__ import annotations

import functools
import ipaddress
import random
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit
from urllib.robotparser import RobotFileParser

from urllib3.util.retry import Retry

from sp_data import __version__
from sp_data.errors import WikiBlocked

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

AGENT = "sp-data"
"""The name that robots.txt rules are looked up for."""
PURPOSE = "pictures and captions for a dataset"
LONGEST_WAIT_S = 300.0
"""A wiki that asks for more patience than this gets all of it: the run ends and is started again later."""
JITTER = (1.0, 1.2)
"""Times the gap that was asked for, never twice the same: a fleet of scrapers must not beat in time."""
RETRIED = (429, 500, 502, 503, 504)


def user_agent(contact: str) -> str:
    """Honest and reachable: Fandom's guard lets such agents pass and stops those that pose as browsers."""
    about = "; ".join(part for part in (PURPOSE, " ".join(contact.split())) if part)
    # A header holds latin-1 only; anything else in a contact would break every request.
    return f"{AGENT}/{__version__} ({about})".encode("latin-1", "replace").decode("latin-1")


class PoliteRetry(Retry):
    """urllib3's Retry for a guest: connection errors, 429 and 5xx, Retry-After obeyed, backoff with jitter.

    Waits 0, 1, 2, 4, 8 s (and up to 1 s of jitter) where the wiki does not say how long, and never less than the pace
    of requests (`gap_s`). Raises WikiBlocked, out of the request, where it asks for more than LONGEST_WAIT_S.
    """

    gap_s: float = 0.0

    @classmethod
    def of_a_guest(cls, gap_s: float = 0.0) -> Self:
        made = cls(
            total=5,
            connect=2,
            read=3,
            status_forcelist=RETRIED,
            allowed_methods=frozenset({"GET"}),
            backoff_factor=0.5,
            backoff_jitter=1.0,
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        made.gap_s = gap_s
        return made

    def new(self, **changed: Any) -> Self:
        made = super().new(**changed)
        made.gap_s = self.gap_s
        return made

    def get_backoff_time(self) -> float:
        return max(super().get_backoff_time(), self.gap_s)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wait_s = super().get_retry_after(response)
        if wait_s is not None:
            check_wait(wait_s)
        return wait_s


def check_wait(wait_s: float) -> None:
    """Raises WikiBlocked if that is longer than a run should sleep."""
    if wait_s > LONGEST_WAIT_S:
        raise WikiBlocked(
            f"the wiki asks to be left alone for {wait_s / 60:.0f} minutes; what was fetched is kept, "
            "run the same command again after that"
        )


@dataclass(slots=True)
class Pace:
    """At most so many requests a second and host, one after the other; 0 = no limit."""

    requests_per_second: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next: dict[str, float] = field(default_factory=dict)

    @property
    def mean_gap_s(self) -> float:
        """Seconds from one request to the next, on average."""
        return sum(JITTER) / 2 / self.requests_per_second if self.requests_per_second else 0.0

    def wait(self, host: str) -> None:
        if not self.requests_per_second:
            return
        due = self._next.get(host, 0.0)
        now = self.clock()
        if due > now:
            self.sleep(due - now)
        gap = random.uniform(*JITTER) / self.requests_per_second
        self._next[host] = max(now, due) + gap


RobotsCache = MutableMapping[str, tuple[float, str]]
"""Host's address -> when its robots.txt was read (seconds since 1970), and its text."""
ROBOTS_FRESH_S = 24 * 3600.0
"""How long a robots.txt may be believed (RFC 9309, 2.4)."""


@dataclass(slots=True)
class Robots:
    """robots.txt of every host that is asked for anything; `read` fetches its text, '' where there is none."""

    read: Callable[[str], str]
    cache: RobotsCache = field(default_factory=dict)
    _rules: dict[str, RobotFileParser] = field(default_factory=dict)

    def check(self, url: str) -> None:
        """Raises WikiBlocked if the host of `url` does not want our agent there."""
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}"
        if place not in self._rules:
            rules = RobotFileParser()
            rules.parse([line for line in self._text(place).splitlines() if _can_be_read(line)])
            self._rules[place] = rules
        if not self._rules[place].can_fetch(AGENT, url):
            raise WikiBlocked(
                f"{place}/robots.txt does not allow {AGENT} to fetch {parts.path}; ask the wiki's owners, "
                "or choose another source.wiki"
            )

    def _text(self, place: str) -> str:
        read_at, text = self.cache.get(place, (0.0, ""))
        if not 0 <= time.time() - read_at < ROBOTS_FRESH_S:
            text = self.read(f"{place}/robots.txt")
            self.cache[place] = (time.time(), text)
        return text


def _can_be_read(line: str) -> bool:
    """Whether Python's parser of robots.txt does not break over a line, such as `Disallow: //[`."""
    try:
        urlsplit(unquote(line.partition(":")[2].strip()))
    except ValueError:
        return False
    return True


def forbids_training(robots_tags: str) -> bool:
    """Whether an X-Robots-Tag says `noai` or `noimageai`, to everyone or to our agent.

    'noai, noimageai' and 'sp-data: noai' do; 'otherbot: noai, noindex' speaks to another.
    """
    for_us = True
    for part in robots_tags.lower().split(","):
        agent, colon, rule = part.partition(":")
        if colon and agent.strip() not in _RULES_WITH_VALUE:
            for_us = agent.strip() in (AGENT, "*")
        if for_us and (rule if colon else agent).strip() in ("noai", "noimageai"):
            return True
    return False


_RULES_WITH_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})


@functools.lru_cache(maxsize=256)
def is_private(host: str) -> bool:
    """Whether a host lies on this machine or inside a private network. One that cannot be looked up does not count:
    then nothing can be fetched from it either, or a proxy does the looking up."""
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(str(address).partition("%")[0]).is_global for address in addresses)
