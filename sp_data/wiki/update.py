"""Facts brought up to date: whatever a change was, the titles that it names are asked for again, as they are now.

A change only says where to look. So it does not matter whether a file was uploaded, reverted, deleted, restored or
moved, in which order, or whether the same change is told twice; and a kind of change that nobody thought of is covered
as long as it names its page.

    File:...            -> that file, if it is or may be selected
    an article          -> that article, and every page whose HTML was read and includes it
    a template, module  -> the files whose own pages include it (their categories), pages read as HTML that include it
"""

from __future__ import annotations

from collections.abc import Collection

from sp_data.wiki.changes import Title
from sp_data.wiki.facts import Facts, Rendered
from sp_data.wiki.files import ask_files, ask_files_using, require_files, selected_categories
from sp_data.wiki.http.client import PAGES_A_REQUEST, PAGES_AN_EXPORT, WikiClient
from sp_data.wiki.pages import ask_articles, ask_usage, pages_to_render, render
from sp_data.wiki.parse.titles import FILE_NAMESPACE, normal_name

TEMPLATE_NAMESPACES = (10, 828)
"""Templates and Lua modules."""
CATEGORY_NAMESPACE = 14


def requests_to_update(touched: Collection[Title]) -> float:
    """About how many requests `update` makes: titles are asked for in fifties, articles for what they show too."""
    return 2 * len(touched) / PAGES_A_REQUEST


def requests_to_gather(facts: Facts) -> float:
    """About how many requests a new gathering makes."""
    return 10 + (2 * len(facts.files) + len(facts.articles)) / PAGES_AN_EXPORT + len(facts.usage) / PAGES_A_REQUEST


def update(client: WikiClient, before: Facts, touched: frozenset[Title]) -> Facts:
    """The facts after pages were `touched`. Raises WikiError if no files are left."""
    facts = before.copy()
    source = client.source
    titles = {title.text for title in touched}
    names = {normal_name(title.text.partition(":")[2]) for title in touched if title.namespace == FILE_NAMESPACE}
    articles = {title.text for title in touched if title.namespace in source.article_namespaces}
    templates = {title.text for title in touched if title.namespace in TEMPLATE_NAMESPACES}
    # Pages of any kind are included by others, such as {{Project:Licence}}; talk pages (odd numbers) hardly ever.
    not_included = {FILE_NAMESPACE, CATEGORY_NAMESPACE, *source.article_namespaces}
    included = {title.text for title in touched if title.namespace % 2 == 0} - {
        title.text for title in touched if title.namespace in not_included
    }

    stale = {asked for asked, page in before.rendered.items() if _depends(asked, page, titles, names)}
    portals = set(source.portals)
    render(client, facts, stale & portals)
    _update_files(client, facts, before, names)
    if included:
        ask_files_using(client, facts, included)
    facts.prune(source, selected_categories(client))
    require_files(client, facts)
    ask_articles(client, facts, articles)
    _update_usage(client, facts, before, articles, everything=bool(templates))

    wanted = {*pages_to_render(facts, client), *portals}
    # A page that is not wanted any more may be gone; what it said does not count.
    facts.rendered = {asked: page for asked, page in facts.rendered.items() if asked in wanted}
    render(client, facts, (wanted - facts.rendered.keys()) | (stale & wanted - portals))
    return facts


def _depends(asked: str, page: Rendered, titles: set[str], names: set[str]) -> bool:
    """Whether a page's HTML may be another after these titles, and files of these names, were touched."""
    if titles & {asked, page.page.title, *page.includes}:
        return True
    # Pages name files by redirects too; what they show then is the redirect's target, whose name a red link hides.
    has_red_links = len(page.page.shown) < len(page.files)
    return bool(names & {*page.files, *page.page.shown}) or (has_red_links and bool(names))


def _update_files(client: WikiClient, facts: Facts, before: Facts, names: set[str]) -> None:
    if client.source.select == "pages":
        portals = client.source.portals
        shown = {name for title in portals for name in facts.rendered[title].files}
        shown_before = {name for title in portals for name in before.rendered[title].files}
        known = shown | facts.files.keys() | facts.aliases.keys()
        # A red link may be a redirect whose file came back under a name that the portal does not tell.
        red = shown - facts.files.keys() - facts.aliases.keys() if names else set()
        names = (names & known) | (shown - shown_before - facts.files.keys()) | red
    ask_files(client, facts, names)


def _update_usage(client: WikiClient, facts: Facts, before: Facts, articles: set[str], *, everything: bool) -> None:
    """Usage of the files that no wikitext shows, as far as it can have changed."""
    untold = facts.untold(client.source.mime_types)
    if everything:
        asked = untold
    else:
        # New ones, and those that a touched page shows or showed.
        asked = untold - before.untold(client.source.mime_types)
        if untold and articles:
            asked |= untold & _shown_on(client, facts, articles)
    facts.usage = {name: users for name, users in facts.usage.items() if name in untold}
    ask_usage(client, facts, asked)


def _shown_on(client: WikiClient, facts: Facts, articles: set[str]) -> set[str]:
    """Files that articles show now by any means, and those of `usage` that they showed before."""
    before = {name for name, users in facts.usage.items() if articles.intersection(users)}
    now = {
        normal_name(str(image["title"]).partition(":")[2])
        for page in client.pages_named(sorted(articles), {"prop": "images", "imlimit": "max"})
        for image in page.get("images", ())
    }
    return before | {facts.aliases.get(name, name) for name in now}
