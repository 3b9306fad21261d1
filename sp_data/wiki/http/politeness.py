"""Politeness towards a wiki: the pace of requests, robots.txt, and what we call ourselves."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.robotparser import RobotFileParser

from sp_data import __version__
from sp_data.errors import RobotsForbid
from sp_data.web_address import read_web_address

log = logging.getLogger(__name__)

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
    """At most so many requests a second to each host, one after the other; 0 = no limit.

    A host that asks for more time between two requests (`slow_down`) gets it.
    """

    requests_per_second: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next: dict[str, float] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    _least_gap_s: dict[str, float] = field(default_factory=dict)

    @property
    def mean_gap_s(self) -> float:
        """Seconds from one request to the next, on average, to a host that asks for nothing else."""
        return sum(JITTER) / 2 / self.requests_per_second if self.requests_per_second else 0.0

    def gap_s(self, host: str) -> float:
        """Seconds from one request to this host to the next, on average."""
        return max(self.mean_gap_s, self._least_gap_s.get(host, 0.0))

    def slow_down(self, host: str, gap_s: float) -> None:
        """Leave at least `gap_s` seconds between two requests to this host from now on."""
        if gap_s <= self._least_gap_s.get(host, 0.0):
            return
        self._least_gap_s[host] = gap_s
        if gap_s > self.mean_gap_s:
            log.info("robots.txt of %s asks for %g s between two requests", host, gap_s)
        # The robots.txt itself was a request, unless an earlier run read it.
        if host in self._last:
            self._next[host] = max(self._next.get(host, 0.0), self._last[host] + gap_s)

    def wait(self, host: str) -> None:
        now = self.clock()
        due = max(self._next.get(host, 0.0), now)
        if due > now:
            self.sleep(due - now)
        gap_s = random.uniform(*JITTER) / self.requests_per_second if self.requests_per_second else 0.0
        self._last[host] = due
        self._next[host] = due + max(gap_s, self._least_gap_s.get(host, 0.0))


RobotsCache = MutableMapping[str, tuple[float, str]]
"""Scheme and host -> when its robots.txt was read (seconds since 1970), and its text."""
ROBOTS_FRESH_S = 24 * 3600.0
"""How long a robots.txt may be cached (RFC 9309, 2.4)."""
LONGEST_CRAWL_DELAY_S = 60.0
"""A longer Crawl-delay is obeyed only up to this: some hosts ask for days, to mean that nobody shall come."""


@dataclass(slots=True)
class Robots:
    """robots.txt of every host that gets a request. `read` fetches its text, '' if there is none."""

    read: Callable[[str], str]
    cache: RobotsCache = field(default_factory=dict)
    _rules: dict[str, RobotFileParser] = field(default_factory=dict)

    def check(self, url: str) -> float:
        """How many seconds the robots.txt of a host wants between two requests; 0 if it does not say.

        Raises RobotsForbid if it forbids `url` to our agent, NotAWebAddress.
        """
        address = read_web_address(url)
        origin = address.origin
        if origin not in self._rules:
            rules = RobotFileParser()
            rules.parse(filter(None, map(_readable, self._text(origin).splitlines())))
            self._rules[origin] = rules
        rules = self._rules[origin]
        if not rules.can_fetch(AGENT, address.url):
            path = address.path if len(address.path) <= 100 else f"{address.path[:100]}…"
            raise RobotsForbid(
                f"{origin}/robots.txt does not allow {AGENT} to fetch {path}; ask the wiki's owners, "
                "or choose another source.wiki"
            )
        rate = rules.request_rate(AGENT)
        by_rate = rate.seconds / rate.requests if rate and rate.requests else 0.0
        return min(max(float(rules.crawl_delay(AGENT) or 0), by_rate), LONGEST_CRAWL_DELAY_S)

    def _text(self, origin: str) -> str:
        read_at, text = self.cache.get(origin, (0.0, ""))
        if not 0 <= time.time() - read_at < ROBOTS_FRESH_S:
            text = self.read(f"{origin}/robots.txt")
            self.cache[origin] = (time.time(), text)
        return text


def _readable(line: str) -> str:
    """A line of a robots.txt as Python's parser can read it, '' if it cannot.

    It raises on `Disallow: //[` and on numbers of thousands of digits, and skips `Crawl-delay: 1.5`.
    """
    key, _, value = line.partition("#")[0].partition(":")
    match key.strip().lower():
        case "crawl-delay":
            seconds = re.match(r"\s*(\d{1,9})(\.\d+)?\s*$", value, re.ASCII)
            return f"Crawl-delay: {int(seconds[1]) + bool(seconds[2] and float(seconds[2]))}" if seconds else ""
        case "request-rate":
            return line if re.match(r"\s*\d{1,9}/\d{1,9}\s*$", value, re.ASCII) else ""
    try:
        urlsplit(unquote(value.strip()))
    except ValueError:
        return ""
    return line


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
