"""What the first request asks of a wiki about itself, and which versions of MediaWiki can answer the others.

parameters(LANGUAGE)          siteinfo, the magic words and messages of the wiki's language, its newest changes
parameters(NAMESPACES_ONLY)   the same without its language, for a wiki that refuses to tell
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sp_data.errors import WikiError
from sp_data.wiki.http.api import Params
from sp_data.wiki.parse.words import MESSAGES

OLDEST = (1, 25)
"""formatversion=2, in which every answer is read."""
FIRST_WITH_SLOTS = (1, 32)
"""Before, rvslots is unknown, and a revision's content stands beside it instead of in a slot."""
_GENERATOR = re.compile(r"MediaWiki (\d+)\.(\d+)")

NAMESPACES_ONLY: Params = {"meta": "siteinfo", "siprop": "general|namespaces|namespacealiases"}
LANGUAGE: Params = {
    "meta": "siteinfo|allmessages",
    "siprop": f"{NAMESPACES_ONLY['siprop']}|magicwords|variables|extensiontags|interwikimap",
    "ammessages": "|".join(MESSAGES),
}
_CHANGES: Params = {
    "list": "recentchanges|logevents",
    "rcprop": "ids|timestamp",
    "rctype": "edit|new|log",
    "rclimit": "max",
    "leprop": "ids|timestamp",
    "lelimit": "max",
    "curtimestamp": 1,
}
_EXPECTED = {"magicwords": "magic words", "allmessages": "messages"}


def parameters(about: Params) -> Params:
    """The first request, with `about`: LANGUAGE or NAMESPACES_ONLY."""
    return {"action": "query", **about, **_CHANGES}


def version_of(query: Mapping[str, Any]) -> tuple[int, int] | None:
    """(1, 39) from 'MediaWiki 1.39.17'; None if the wiki does not tell."""
    match = _GENERATOR.search(str(query.get("general", {}).get("generator", "")))
    return (int(match[1]), int(match[2])) if match else None


def check_version(wiki: str, query: Mapping[str, Any]) -> None:
    """Raises WikiError if the wiki's MediaWiki is too old."""
    version = version_of(query)
    if version is not None and version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise WikiError(
            f"{wiki} runs {query['general']['generator']}; sp-data needs MediaWiki {oldest} or later, "
            "so this wiki cannot be scraped"
        )


def untold(query: Mapping[str, Any]) -> str:
    """What the wiki did not tell of its language, in words; '' if it told everything."""
    return " and ".join(what for part, what in _EXPECTED.items() if not query.get(part))
