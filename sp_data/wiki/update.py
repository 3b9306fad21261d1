"""Facts brought up to date: the titles that a change names are requested again, as they are now.

A change only says which titles to request. So it does not matter whether a file was uploaded, reverted, deleted,
restored or moved, in which order, or whether a change is listed twice; an unknown kind of change is covered too, as
long as it names its page.

    File:...            -> that file, if the source selects it or may select it
    an article          -> that article, and every page read as HTML that includes it
    a template, module  -> the files whose own pages include it (their categories), pages read as HTML that include it
"""

from __future__ import annotations

from collections.abc import Collection

from sp_data.wiki.changes import Title
from sp_data.wiki.facts import Facts, Rendered
from sp_data.wiki.files import ask_files, ask_files_using, require_files, selected_categories
from sp_data.wiki.http.client import PAGES_A_REQUEST, PAGES_AN_EXPORT, WikiClient
from sp_data.wiki.pages import ask_articles, ask_usage, pages_to_render, render
from sp_data.wiki.parse.titles import CATEGORY_NAMESPACE, FILE_NAMESPACE, name_of

TEMPLATE_NAMESPACES = (10, 828)
"""Templates and Lua modules."""


def requests_to_update(touched: Collection[Title]) -> float:
    """About how many requests `update` makes: 50 titles a request, and articles once more for the files they show."""
    return 2 * len(touched) / PAGES_A_REQUEST


def requests_to_gather(facts: Facts) -> float:
    """About how many requests it takes to gather everything again."""
    return 10 + (2 * len(facts.files) + len(facts.articles)) / PAGES_AN_EXPORT + len(facts.usage) / PAGES_A_REQUEST


def update(client: WikiClient, before: Facts, touched: frozenset[Title]) -> Facts:
    """The facts after the pages `touched` changed. Raises WikiError if no files are left."""
    facts = before.copy()
    source = client.source
    titles = {title.text for title in touched}
    names = {name_of(title.text) for title in touched if title.namespace == FILE_NAMESPACE}
    articles = {title.text for title in touched if title.namespace in source.article_namespaces}
    templates = {title.text for title in touched if title.namespace in TEMPLATE_NAMESPACES}
    # Pages of any namespace can be included, such as {{Project:Licence}}; talk pages (odd numbers) hardly ever are.
    not_included = {FILE_NAMESPACE, CATEGORY_NAMESPACE, *source.article_namespaces}
    included = {title.text for title in touched if title.namespace % 2 == 0} - {
        title.text for title in touched if title.namespace in not_included
    }

    stale = {title for title, page in before.rendered.items() if _depends(title, page, titles, names)}
    portals = set(source.portals)
    render(client, facts, stale & portals)
    _update_files(client, facts, before, names)
    if included:
        ask_files_using(client, facts, included)
    facts.prune(source, selected_categories(client))
    require_files(client, facts)
    ask_articles(client, facts, articles)
    facts.keep_known(before)
    _update_usage(client, facts, before, articles, everything=bool(templates))

    wanted = {*pages_to_render(facts, client), *portals}
    # A page that is not wanted any more may be deleted; its facts are dropped.
    facts.rendered = {title: page for title, page in facts.rendered.items() if title in wanted}
    render(client, facts, (wanted - facts.rendered.keys()) | (stale & wanted - portals))
    facts.keep_known(before)
    return facts


def _depends(title: str, page: Rendered, titles: set[str], names: set[str]) -> bool:
    """Whether a page's HTML may have changed now that these titles and the files of these names were touched."""
    if titles & {title, page.page.title, *page.includes}:
        return True
    # A page may name a file by a redirect. It then shows the redirect's target, whose name a red link does not tell.
    has_red_links = len(page.page.shown) < len(page.files)
    return bool(names & {*page.files, *page.page.shown}) or (has_red_links and bool(names))


def _update_files(client: WikiClient, facts: Facts, before: Facts, names: set[str]) -> None:
    if client.source.select == "pages":
        portals = client.source.portals
        shown = {name for title in portals for name in facts.rendered[title].files}
        shown_before = {name for title in portals for name in before.rendered[title].files}
        known = shown | facts.files.keys() | facts.aliases.keys()
        # A red link may be a redirect whose file was restored under a name that does not stand on the portal.
        red_links = shown - facts.files.keys() - facts.aliases.keys() if names else set()
        names = (names & known) | (shown - shown_before - facts.files.keys()) | red_links
    ask_files(client, facts, names)


def _update_usage(client: WikiClient, facts: Facts, before: Facts, articles: set[str], *, everything: bool) -> None:
    """Ask for the usage of the files that no wikitext shows, as far as it may have changed."""
    in_no_wikitext = facts.files_not_in_wikitext(client.source.mime_types)
    if everything:
        changed = in_no_wikitext
    else:
        # New ones, and those that a touched page shows or showed.
        changed = in_no_wikitext - before.files_not_in_wikitext(client.source.mime_types)
        if in_no_wikitext and articles:
            changed |= in_no_wikitext & _shown_on(client, facts, articles)
    facts.usage = {name: users for name, users in facts.usage.items() if name in in_no_wikitext}
    ask_usage(client, facts, changed)


def _shown_on(client: WikiClient, facts: Facts, articles: set[str]) -> set[str]:
    """Files that the articles show now in any way, and those of `usage` that they showed before."""
    before = {name for name, users in facts.usage.items() if articles.intersection(users)}
    now = {
        name_of(str(image["title"]))
        for page in client.pages_named(sorted(articles), {"prop": "images", "imlimit": "max"})
        for image in page.get("images", ())
    }
    return before | {facts.aliases.get(name, name) for name in now}
