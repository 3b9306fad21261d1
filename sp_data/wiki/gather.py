"""All facts of a wiki, gathered from scratch: 10 requests for 774 files and as many articles."""

from __future__ import annotations

from collections.abc import Callable

from sp_data.wiki.facts import Facts
from sp_data.wiki.files import list_files, require_files
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.pages import ask_usage, pages_to_render, read_articles, render


def gather(client: WikiClient, known: Callable[[], Facts | None] = lambda: None) -> Facts:
    """Request everything that the source selects. Raises WikiError if there are no files.

    `known`: gives an earlier run's facts; it is called if there are pages that cannot be read.
    """
    facts = Facts()
    render(client, facts, client.source.portals)
    list_files(client, facts)
    require_files(client, facts)
    read_articles(client, facts)
    if facts.num_unread and (before := known()) is not None:
        facts.keep_known(before)
    ask_usage(client, facts, facts.files_not_in_wikitext(client.source.mime_types))
    render(client, facts, set(pages_to_render(facts, client)) - facts.rendered.keys())
    if facts.num_unread and (before := known()) is not None:
        facts.keep_known(before)
    return facts
