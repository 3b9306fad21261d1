"""Politeness towards a wiki: the pace of requests, retries, robots.txt, and private hosts that are not contacted."""

from __future__ import annotations

import functools
import ipaddress
import random
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.robotparser import RobotFileParser

from sp_data import __version__
from sp_data.errors import WikiBlocked

if TYPE_CHECKING:
    pass

AGENT = "sp-data"
"""The user agent whose rules in robots.txt apply."""
PURPOSE = "pictures and captions for a dataset"
JITTER = (1.0, 1.2)
"""Random factors of the gap between requests, so that several scrapers do not run in step."""


def user_agent(contact: str) -> str:
    """The User-Agent header. Fandom's guard lets honest agents pass and stops those that pose as browsers."""
    about = "; ".join(part for part in (PURPOSE, " ".join(contact.split())) if part)
    # A header can hold only latin-1; any other character in a contact would break every request.
    return f"{AGENT}/{__version__} ({about})".encode("latin-1", "replace").decode("latin-1")


@dataclass(slots=True)
class Pace:
    """At most so many requests a second to each host, one after the other; 0 = no limit."""

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
"""Scheme and host -> when its robots.txt was read (seconds since 1970), and its text."""
ROBOTS_FRESH_S = 24 * 3600.0
"""How long a robots.txt may be cached (RFC 9309, 2.4)."""


@dataclass(slots=True)
class Robots:
    """robots.txt of every host that gets a request. `read` fetches its text, '' if there is none."""

    read: Callable[[str], str]
    cache: RobotsCache = field(default_factory=dict)
    _rules: dict[str, RobotFileParser] = field(default_factory=dict)

    def check(self, url: str) -> None:
        """Raises WikiBlocked if the robots.txt of its host forbids `url` to our agent."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._rules:
            rules = RobotFileParser()
            rules.parse([line for line in self._text(origin).splitlines() if _can_be_read(line)])
            self._rules[origin] = rules
        if not self._rules[origin].can_fetch(AGENT, url):
            raise WikiBlocked(
                f"{origin}/robots.txt does not allow {AGENT} to fetch {parts.path}; ask the wiki's owners, "
                "or choose another source.wiki"
            )

    def _text(self, origin: str) -> str:
        read_at, text = self.cache.get(origin, (0.0, ""))
        if not 0 <= time.time() - read_at < ROBOTS_FRESH_S:
            text = self.read(f"{origin}/robots.txt")
            self.cache[origin] = (time.time(), text)
        return text


def _can_be_read(line: str) -> bool:
    """Whether Python's parser can read this line of a robots.txt; it raises on `Disallow: //[`."""
    try:
        urlsplit(unquote(line.partition(":")[2].strip()))
    except ValueError:
        return False
    return True


def forbids_training(robots_tags: str) -> bool:
    """Whether an X-Robots-Tag says `noai` or `noimageai`, to everyone or to our agent.

    'noai, noimageai' and 'sp-data: noai' do; 'otherbot: noai, noindex' addresses another agent.
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
    """Whether a host is this machine or in a private network.

    False if its name cannot be resolved: then nothing can be fetched from it either, or a proxy resolves the name.
    """
    if host == "localhost" or host.endswith(".localhost"):
        # By definition (RFC 6761). No resolver is asked, which would be told of the demo's wiki.
        return True
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(str(address).partition("%")[0]).is_global for address in addresses)
