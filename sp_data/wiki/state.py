"""What a scrape remembers for the next one: the facts, where its look at the changes ended, what could not be fetched.

    wiki/memory.json              small: all that a run needs which finds that nothing changed
    wiki/facts-5f0c….json.gz      the facts, and the pictures that were refused
    wiki/robots.json              the robots.txt files that were read
    wiki/journal/                 the answers of a run that is under way (journal.py)

It only saves work. Without it, or with one that cannot be read, the next scrape gathers everything again and comes to
the same catalogue, with the same originals.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sp_data.canonical import digest_of
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.changes import Mark, Title
from sp_data.wiki.facts import Facts
from sp_data.wiki.http.client import Site
from sp_data.wiki.http.politeness import RobotsCache
from sp_data.wiki.originals import FetchRefusal

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when facts are read differently from the same pages: they are then gathered again."""
MEMORY = "wiki/memory.json"
ROBOTS = "wiki/robots.json"
FACTS = "wiki/facts-"


class Memory(BaseModel):
    """The small part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    source: str
    """Digest of what the facts depend on in the recipe."""
    site: Site
    mark: Mark
    reconciled_at: str
    """The wiki's time when everything was gathered last."""
    runs: int
    """That found changes since then."""
    unsettled: tuple[Title, ...]
    """Templates that changed just before the last look: a wiki works off for a while what follows from that."""
    facts: str
    """Path of the large part."""
    published: str | None
    """Identity of the catalogue that was made of the facts; None while pictures are still being fetched."""
    num_failed: int
    """Pictures that may come at another try."""


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """The large part. `refused`: pictures that could not be fetched, as originals.py names them."""

    facts: Facts
    refused: dict[str, FetchRefusal]


_KNOWN_FACTS = TypeAdapter(KnownFacts)


def source_digest(source: Source) -> str:
    """Of the fields that facts depend on: what is asked, not what captions are made of it."""
    what = source.identity_fields()
    return digest_of({name: value for name, value in what.items() if not name.startswith("caption_")})


def recall(lake: Lake, source: Source) -> Memory | None:
    """What was remembered of this source, None if nothing that can be used."""
    if not lake.exists(MEMORY):
        return None
    try:
        memory = Memory.model_validate_json(lake.read_bytes(MEMORY))
    except ValidationError:
        log.info("%s cannot be read; everything is gathered again", lake.full(MEMORY))
        return None
    if memory.version != VERSION or memory.source != source_digest(source):
        log.info("the recipe's source, or the way it is read, is new; everything is gathered again")
        return None
    return memory if lake.exists(memory.facts) else None


def recall_facts(lake: Lake, memory: Memory) -> KnownFacts | None:
    """The large part, None if it cannot be read."""
    try:
        return _KNOWN_FACTS.validate_json(gzip.decompress(lake.read_bytes(memory.facts)))
    except (OSError, EOFError, ValidationError):
        log.info("%s cannot be read; everything is gathered again", lake.full(memory.facts))
        # Equal facts would have the same name.
        lake.remove(memory.facts)
        return None


def write_facts(lake: Lake, kept: KnownFacts) -> str:
    """Publish the large part; equal facts give equal bytes and one path. Returns it."""
    facts = Facts(*(dict(sorted(getattr(kept.facts, name).items())) for name in Facts.__slots__))
    body = _KNOWN_FACTS.dump_json(KnownFacts(facts, dict(sorted(kept.refused.items()))))
    path = f"{FACTS}{digest_of(body.decode())[:32]}.json.gz"
    if not lake.exists(path):
        lake.write_bytes(path, gzip.compress(body, 6, mtime=0), durable=True)
    return path


def remember(lake: Lake, memory: Memory) -> None:
    """Make it the newest, then let go of facts that it does not name."""
    lake.write_bytes(MEMORY, memory.model_dump_json(indent=1).encode() + b"\n", durable=True)
    for path in lake.list("wiki"):
        if path.startswith(FACTS) and path != memory.facts:
            lake.remove(path)


def follow(lake: Lake, before: str, after: str) -> None:
    """The catalogue that was made of the facts was published once more, under another identity."""
    if not lake.exists(MEMORY):
        return
    # One that cannot be read is made anew by the next scrape.
    with contextlib.suppress(ValidationError):
        memory = Memory.model_validate_json(lake.read_bytes(MEMORY))
        if memory.published == before:
            remember(lake, memory.model_copy(update={"published": after}))


def recall_robots(lake: Lake) -> RobotsCache:
    """Robots.txt files by host; empty if there are none that can be read."""
    if not lake.exists(ROBOTS):
        return {}
    try:
        kept: dict[str, Any] = json.loads(lake.read_bytes(ROBOTS))
        return {place: (float(at), str(text)) for place, (at, text) in kept.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def remember_robots(lake: Lake, robots: RobotsCache) -> None:
    if dict(robots) != dict(recall_robots(lake)):
        lake.write_bytes(ROBOTS, json.dumps(dict(robots), indent=1).encode() + b"\n")
