"""What a scrape saves for the next one: the facts, where its poll for changes ended, what could not be fetched.

    wiki/memory.json              small: all that a run needs to find that nothing changed
    wiki/facts-5f0c….json.gz      the facts, and the pictures that were refused
    wiki/robots.json              the robots.txt files that were read
    wiki/journal/                 the answers of an unfinished run (http/journal.py)

The state only saves work. If it is missing or cannot be read, the next scrape gathers everything again and ends with
the same catalogue and the same originals.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sp_data.canonical import digest_of, parse_json
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.changes import Mark, Title
from sp_data.wiki.facts import Facts
from sp_data.wiki.http.client import Site
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.refusals import LONGEST_WAIT_S, FetchRefusal

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same pages are parsed into different facts: everything is then gathered again."""
STATE = "wiki/memory.json"
ROBOTS = "wiki/robots.json"
FACTS = "wiki/facts-"


class ScrapeState(BaseModel):
    """The small file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    source: str
    """Digest of the recipe's fields that the facts depend on."""
    site: Site
    mark: Mark
    reconciled_at: str
    """The wiki's time when everything was last gathered."""
    runs: int
    """Number of runs that found changes since then."""
    unsettled: tuple[Title, ...]
    """Templates that changed just before the last run: the wiki updates the pages that include them in its own time."""
    facts: str
    """Path of the large file."""
    published: str | None
    """Identity of the catalogue that was made of the facts; None while pictures are still being fetched."""
    num_failed: int
    """Number of pictures that another try may fetch."""
    retry_at: float = 0.0
    """When the first of them may be asked for again (seconds since 1970)."""
    looked_at: str = ""
    """When the wiki was last asked (UTC, ISO 8601, by this machine's clock); noted once a day while nothing changes."""

    @property
    def has_due(self) -> bool:
        """Whether a picture that did not come is to be asked for now. A clock that was put back delays nothing."""
        now = time.time()
        return self.num_failed > 0 and not now < self.retry_at < now + 2 * LONGEST_WAIT_S


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """The large file. `refused`: pictures that could not be fetched, by the keys that originals.py gives them."""

    facts: Facts
    refused: dict[str, FetchRefusal]


_KNOWN_FACTS = TypeAdapter(KnownFacts)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def source_digest(source: Source) -> str:
    """Digest of the fields that the facts depend on: what is requested, not how captions are made of it."""
    fields = source.identity_fields()
    return digest_of({name: value for name, value in fields.items() if not name.startswith("caption_")})


def load_state(lake: Lake, source: Source) -> ScrapeState | None:
    """The state saved for this source, None if there is none that can be used."""
    if not lake.exists(STATE):
        return None
    try:
        state = ScrapeState.model_validate_json(lake.read_bytes(STATE))
    except ValidationError:
        log.info("%s cannot be read; everything is gathered again", lake.full(STATE))
        return None
    if state.version != VERSION or state.source != source_digest(source):
        log.info("the recipe's source, or the version of its parser, changed; everything is gathered again")
        return None
    return state if lake.exists(state.facts) else None


def last_look(lake: Lake) -> str:
    """When the wiki was last asked, to within a day (UTC, ISO 8601); empty if that is not known, as of a list."""
    try:
        return ScrapeState.model_validate_json(lake.read_bytes(STATE)).looked_at
    except (FileNotFoundError, ValidationError):
        return ""


def load_facts(lake: Lake, state: ScrapeState) -> KnownFacts | None:
    """The facts that the state names, None if they cannot be read."""
    try:
        return _KNOWN_FACTS.validate_json(gzip.decompress(lake.read_bytes(state.facts)))
    except (OSError, EOFError, ValidationError):
        log.info("%s cannot be read; everything is gathered again", lake.full(state.facts))
        # Equal facts have the same path, and save_facts keeps a file that exists.
        lake.remove(state.facts)
        return None


def save_facts(lake: Lake, known: KnownFacts) -> str:
    """Write the facts; returns their path. Equal facts give equal bytes and the same path."""
    facts = Facts(*(dict(sorted(getattr(known.facts, name).items())) for name in Facts.__slots__))
    body = _KNOWN_FACTS.dump_json(KnownFacts(facts, dict(sorted(known.refused.items()))))
    path = f"{FACTS}{digest_of(body.decode())[:32]}.json.gz"
    if not lake.exists(path):
        lake.write_bytes(path, gzip.compress(body, 6, mtime=0), durable=True)
    return path


def save_state(lake: Lake, state: ScrapeState) -> None:
    """Make this the newest state, then remove facts that it does not name."""
    lake.write_bytes(STATE, state.model_dump_json(indent=1).encode() + b"\n", durable=True)
    for path in lake.list("wiki"):
        if path.startswith(FACTS) and path != state.facts:
            lake.remove(path)


def update_published(lake: Lake, before: str, after: str) -> None:
    """Record that the catalogue made of the facts was republished under another identity."""
    if not lake.exists(STATE):
        return
    # The next scrape replaces a state that cannot be read.
    with contextlib.suppress(ValidationError):
        state = ScrapeState.model_validate_json(lake.read_bytes(STATE))
        if state.published == before:
            save_state(lake, state.model_copy(update={"published": after}))


def load_robots(lake: Lake) -> RobotsCache:
    """The saved robots.txt files by host; empty if there are none or they cannot be read."""
    if not lake.exists(ROBOTS):
        return {}
    try:
        hosts: dict[str, Any] = parse_json(lake.read_bytes(ROBOTS))
        return {host: (float(read_at), str(text)) for host, (read_at, text) in hosts.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def save_robots(lake: Lake, robots: RobotsCache) -> None:
    if dict(robots) != dict(load_robots(lake)):
        lake.write_bytes(ROBOTS, json.dumps(dict(robots), indent=1).encode() + b"\n")
