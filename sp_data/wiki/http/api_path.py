"""Where a wiki's API may be, seen from the address in the recipe.

    api_addresses("https://x.fandom.com")                       .../api.php, .../w/api.php
    wikis_around("https://x.fandom.com/de/wiki/Foo")            ['https://x.fandom.com/de', 'https://x.fandom.com']
    api_named_in(html, "https://x.fandom.com/de/wiki/Foo")      'https://x.fandom.com/de/api.php'

People paste the address of a page instead of the wiki's. Every page of a MediaWiki names its API in its head:
<link rel="EditURI" type="application/rsd+xml" href="//x.fandom.com/de/api.php?action=rsd"/>
"""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urljoin

from sp_data.web_address import NotAWebAddress, read_web_address

API_PATHS = ("/api.php", "/w/api.php")
_LINK = re.compile(r"<link\b[^<>]{0,2000}>", re.IGNORECASE)
_REL = re.compile(r"""\brel\s*=\s*["']?EditURI\b""", re.IGNORECASE)
_HREF = re.compile(r"""\bhref\s*=\s*["']?([^"'\s<>]+)""", re.IGNORECASE)


def api_addresses(wiki: str) -> list[str]:
    """Where the API of a wiki may be, the likeliest first."""
    return [wiki + path for path in API_PATHS]


def wikis_around(wiki: str) -> list[str]:
    """Addresses of wikis that `wiki` may be a page of, the longest first; empty if it has no path."""
    address = read_web_address(wiki)
    folders = address.path.strip("/").split("/")[:-1]
    # An article stands below /wiki/, which belongs to no wiki's own address.
    if "wiki" in folders:
        folders = folders[: folders.index("wiki")]
    # Only the next one up and the host: each costs up to two requests.
    paths = dict.fromkeys(["/".join(folders), ""]) if address.path != "/" else {}
    return [f"{address.origin}/{path}".rstrip("/") for path in paths]


def api_named_in(page: str, address: str) -> str | None:
    """The API that an HTML page at `address` names, None if it names none."""
    for link in _LINK.findall(page):
        if _REL.search(link) and (href := _HREF.search(link)):
            try:
                api = read_web_address(urljoin(address, unescape(href[1]))).url
            except (NotAWebAddress, ValueError):
                continue
            return api.partition("?")[0]
    return None
