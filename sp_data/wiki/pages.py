"""What the wiki's articles say: from their wikitext (500 a request), and from HTML where the wikitext names no file.

A portal's gallery may come from a template, and an infobox's picture from Lua: the wikitext then names no file. The
source's `pages`, which select files, are always read as HTML. Other pages are read as HTML if they show a wanted file
that no article's wikitext names: one page for each such file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sp_data.errors import WikiApiError
from sp_data.runtime.bounded import GivenUp
from sp_data.wiki.facts import Facts, Rendered
from sp_data.wiki.files import wikitext_of
from sp_data.wiki.http.answers import Json
from sp_data.wiki.http.api import Params
from sp_data.wiki.http.client import CONTENT, WikiClient
from sp_data.wiki.parse.bounded import read_html, read_page
from sp_data.wiki.parse.page import Page
from sp_data.wiki.parse.titles import cleaned_name, file_title, name_of, owner_key

log = logging.getLogger(__name__)


def read_articles(client: WikiClient, facts: Facts) -> None:
    """Add every page of the source's article namespaces, except redirects."""
    for namespace in client.source.article_namespaces:
        before = len(facts.articles)
        params: Params = {
            "generator": "allpages",
            "gapnamespace": namespace,
            "gapfilterredir": "nonredirects",
            "gaplimit": "max",
        }
        for page in client.pages_with_text(params):
            _take_article(client, facts, page)
        log.info("read %d pages of namespace %d", len(facts.articles) - before, namespace)


def ask_articles(client: WikiClient, facts: Facts, titles: Iterable[str]) -> None:
    """Discard what is known of these pages, and request them again."""
    wanted = sorted(set(titles))
    for title in wanted:
        facts.articles.pop(title, None)
        facts.unread.pop(title, None)
    for page in client.pages_named(wanted, {**CONTENT, "prop": f"{CONTENT['prop']}|info"}):
        if not page.get("redirect"):
            _take_article(client, facts, page)


def render(client: WikiClient, facts: Facts, titles: Iterable[str]) -> None:
    """Read the HTML of these pages, one request each. Raises WikiApiError if a portal is missing."""
    for title in sorted(set(titles)):
        try:
            page = client.rendered(title)
        except WikiApiError as error:
            if title in client.source.portals:
                raise
            # It may have been deleted meanwhile, or break the wiki's parser; its pictures have other captions.
            log.warning("%s is not read as HTML: %s", title, error)
            continue
        identity = str(page["title"]), int(page["pageid"]), int(page["revid"])
        unread = ""
        try:
            shown = read_html(str(page["text"]), *identity)
        except GivenUp as reason:
            unread = str(reason)
            shown = Page(*identity, infoboxes=(), uses=(), lead="", categories=())
            log.warning("the HTML of %s is not read: %s; the captions that it gave stay as they were", title, reason)
        facts.rendered[title] = Rendered(
            page=shown,
            files=tuple(sorted({str(name).replace("_", " ") for name in page.get("images", ())})),
            includes=tuple(sorted({str(included["title"]) for included in page.get("templates", ())})),
            unread=unread,
        )


def ask_usage(client: WikiClient, facts: Facts, names: Iterable[str]) -> None:
    """Ask which articles show these files, and put them into `facts.usage`."""
    wanted = sorted(set(names))
    for name in wanted:
        facts.usage.pop(name, None)
    spaces = "|".join(map(str, client.source.article_namespaces))
    params: Params = {"prop": "fileusage", "fuprop": "title|redirect", "funamespace": spaces, "fulimit": "max"}
    for page in client.pages_named(map(file_title, wanted), params):
        users = sorted(str(user["title"]) for user in page.get("fileusage", ()) if not user.get("redirect"))
        if users:
            facts.usage[name_of(str(page["title"]))] = tuple(users)


def pages_to_render(facts: Facts, client: WikiClient) -> list[str]:
    """Titles of the articles to read as HTML: one for each file in `usage`, preferably the page of the file's name."""
    titles = {_page_for(name, users) for name, users in facts.usage.items()}
    limit = client.source.max_html_pages
    if len(titles) > limit:
        log.warning(
            "%d pages show pictures that their wikitext does not name; %d of them are read as HTML "
            "(the limit is source.max_html_pages)",
            len(titles),
            limit,
        )
    return sorted(titles)[:limit]


def _page_for(name: str, users: tuple[str, ...]) -> str:
    words = owner_key(cleaned_name(name))
    return min(users, key=lambda title: (owner_key(title) != words, "/" in title, title))


def complete(article: Page | None, html: Page) -> Page:
    """The page as its wikitext has it, plus the pictures that only its HTML shows."""
    if article is None:
        return html
    in_wikitext = article.shown
    boxes = tuple(box for box in html.infoboxes if any(use.name not in in_wikitext for use in box.pictures))
    return Page(
        title=article.title,
        page_id=article.page_id,
        revision=article.revision,
        infoboxes=(*article.infoboxes, *boxes),
        uses=(*article.uses, *(use for use in html.uses if use.name not in in_wikitext)),
        lead=article.lead or html.lead,
        categories=article.categories,
    )


def _take_article(client: WikiClient, facts: Facts, page: Json) -> None:
    text = wikitext_of(page)
    if text is not None:
        title, revision = str(page["title"]), int(page["revisions"][0]["revid"])
        facts.unread.pop(title, None)
        try:
            facts.articles[title] = read_page(text, title, int(page["pageid"]), revision, client.namespaces)
        except GivenUp as reason:
            facts.unread[title] = str(reason)
            log.warning("%s is not read: %s; the captions that it gave stay as they were", title, reason)
