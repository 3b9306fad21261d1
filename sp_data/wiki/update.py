"""Facts brought up to date: whatever a change was, the titles that it names are asked for again, as they are now.

A change only says where to look. So it does not matter whether a file was uploaded, reverted, deleted, restored or
moved, in which order, or whether the same change is told twice; and a kind of change that nobody thought of is covered
as long as it names its page.

    File:...            -> that file, if it is or may be selected
    an article          -> that article, and every page whose HTML was read and includes it
    a template, module  -> the files whose own pages include it (their categories), pages read as HTML that include it
"""

from __future__ import annotations

from sp_data.wiki.changes import Title
from sp_data.wiki.client import WikiClient
from sp_data.wiki.facts import Facts
from sp_data.wiki.listing import ask_files, ask_files_using, require_files, selected_categories
from sp_data.wiki.pages import ask_articles, ask_usage, pages_to_render, render
from sp_data.wiki.titles import FILE_NAMESPACE, normal_name

TEMPLATE_NAMESPACES = (10, 828)
"""Templates and Lua modules."""


def update(client: WikiClient, before: Facts, touched: frozenset[Title]) -> Facts:
    """The facts after pages were `touched`. Raises WikiError if no files are left."""
    facts = before.copy()
    source = client.source
    titles = {title.text for title in touched}
    names = {normal_name(title.text.partition(":")[2]) for title in touched if title.namespace == FILE_NAMESPACE}
    articles = {title.text for title in touched if title.namespace in source.article_namespaces}
    templates = {title.text for title in touched if title.namespace in TEMPLATE_NAMESPACES}

    stale = {
        asked
        for asked, page in before.rendered.items()
        # Pages name files by redirects too; what they show then is the redirect's target.
        if {asked, page.page.title, *page.includes} & titles or names & {*page.files, *page.page.shown}
    }
    portals = set(source.portals)
    render(client, facts, stale & portals)
    _update_files(client, facts, before, names)
    if templates:
        ask_files_using(client, facts, templates)
    facts.prune(source, selected_categories(client))
    require_files(client, facts)
    ask_articles(client, facts, articles)
    _update_usage(client, facts, before, articles, everything=bool(templates))

    wanted = {*pages_to_render(facts, client), *portals}
    # A page that is not wanted any more may be gone; what it said does not count.
    facts.rendered = {asked: page for asked, page in facts.rendered.items() if asked in wanted}
    render(client, facts, (wanted - facts.rendered.keys()) | (stale & wanted - portals))
    return facts


def _update_files(client: WikiClient, facts: Facts, before: Facts, names: set[str]) -> None:
    if client.source.select == "pages":
        portals = client.source.portals
        shown = {name for title in portals for name in facts.rendered[title].files}
        shown_before = {name for title in portals for name in before.rendered[title].files}
        known = shown | facts.files.keys() | facts.aliases.keys()
        names = (names & known) | (shown - shown_before - facts.files.keys())
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
