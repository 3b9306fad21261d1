"""What the wiki's pages say: articles one after the other, and the description page of each listed file.

50 pages a request, which is MediaWiki's limit where content is asked for; wikitext is read and let go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from sp_data.wiki import filepage, rendered, wikitext
from sp_data.wiki.captions import Page
from sp_data.wiki.client import Json, Params, WikiClient
from sp_data.wiki.filepage import FilePage
from sp_data.wiki.listing import WikiFile

log = logging.getLogger(__name__)

PAGES_A_REQUEST = 50
_CONTENT: Params = {"prop": "revisions", "rvprop": "content|ids", "rvslots": "main"}


def read_articles(client: WikiClient) -> Iterator[Page]:
    """Every page of the source's article namespaces, redirects left out, in the wiki's order of titles."""
    for namespace in client.source.article_namespaces:
        params: Params = {
            "generator": "allpages",
            "gapnamespace": namespace,
            "gapfilterredir": "nonredirects",
            "gaplimit": PAGES_A_REQUEST,
        }
        num_pages = 0
        for page in client.pages({**params, **_CONTENT}):
            text = _wikitext(page)
            if text is not None:
                num_pages += 1
                revision = int(page["revisions"][0]["revid"])
                yield wikitext.read(text, str(page["title"]), int(page["pageid"]), revision, client.namespaces)
        log.info("read %d pages of namespace %d", num_pages, namespace)


def read_rendered(client: WikiClient) -> Iterator[Page]:
    """The source's `pages` as readers see them, one request each: their galleries may come from templates."""
    for title in client.source.pages if client.source.select == "pages" else ():
        page = client.rendered(title)
        yield rendered.read(page["text"], str(page["title"]), int(page["pageid"]), int(page["revid"]))


def read_file_pages(client: WikiClient, files: Iterable[WikiFile]) -> dict[str, FilePage]:
    """Name -> what the file's own page says; files without a page of their own are left out."""
    found: dict[str, FilePage] = {}
    names = {file.page_id: file.name for file in files if file.page_id is not None}
    page_ids = iter(names)
    while batch := list(islice(page_ids, PAGES_A_REQUEST)):
        for page in client.pages({"pageids": "|".join(map(str, batch)), **_CONTENT}):
            text = _wikitext(page)
            if text is not None and (name := names.get(int(page["pageid"]))):
                found[name] = filepage.read(text, client.namespaces)
    log.info("read %d file pages", len(found))
    return found


def _wikitext(page: Json) -> str | None:
    """None for a page that is gone or hidden, or that is no wikitext (scripts, style sheets, data)."""
    for revision in page.get("revisions", ())[:1]:
        main = revision.get("slots", {}).get("main", {})
        if main.get("contentmodel") == "wikitext" and "content" in main:
            return str(main["content"])
    return None
