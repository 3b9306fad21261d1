"""What the wiki says of its files: size, sha1, type, address, categories, redirects to them, and their own pages.

A request gets all of that, wikitext included, for 500 files from a generator, or for 50 files by name.
A file redirect is not a file: it becomes an alias, so that captions on pages that use the old name still count.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator

from sp_data.errors import WikiError
from sp_data.recipe import Source
from sp_data.runtime.bounded import GivenUp
from sp_data.web_address import without_login
from sp_data.wiki.facts import Facts, WikiFile
from sp_data.wiki.http.answers import Json, number_of, objects_in, text_of
from sp_data.wiki.http.api import Params
from sp_data.wiki.http.client import CONTENT, WikiClient
from sp_data.wiki.parse.bounded import read_file_page
from sp_data.wiki.parse.titles import CATEGORY_NAMESPACE, FILE_NAMESPACE, file_title, name_of

_SHA1 = re.compile(r"[0-9a-f]{40}")
log = logging.getLogger(__name__)

WANTED: Params = {
    "prop": "imageinfo|categories|redirects",
    "iiprop": "timestamp|user|url|size|sha1|mime|canonicaltitle",
    "cllimit": "max",
    "rdprop": "title",
    "rdnamespace": FILE_NAMESPACE,
    "rdlimit": "max",
}
WANTED_WITH_TEXT: Params = {**CONTENT, **WANTED, "prop": f"{WANTED['prop']}|{CONTENT['prop']}"}


def list_files(client: WikiClient, facts: Facts) -> None:
    """Add every file that the source selects; the source's pages must be in `facts.rendered` already."""
    listed: set[str] = set()
    for generator in _generators(client):
        for page in client.pages_with_text({**generator, **WANTED}):
            listed.add(name_of(page["title"]))
            take_file(client, facts, page)
    ask_files(client, facts, facts.portal_files(client.source) - listed)
    facts.prune(client.source, selected_categories(client))
    log.info("listed %d files of %s (%s)", len(facts.files), client.source.wiki, selection(client.source))


def require_files(client: WikiClient, facts: Facts) -> None:
    """Raises WikiError if nothing is selected: an emptied portal must not empty the dataset."""
    if not facts.files:
        raise WikiError(
            f"{client.source.wiki} has no files to scrape ({selection(client.source)}): see source.select in the recipe"
        )


def ask_files(client: WikiClient, facts: Facts, names: Iterable[str]) -> None:
    """Discard what is known of these files and aliases, and request them by name."""
    wanted = sorted(set(names))
    stale = set(wanted)
    for name in wanted:
        facts.files.pop(name, None)
        facts.file_pages.pop(name, None)
        facts.unread.pop(file_title(name), None)
    facts.aliases = {alias: name for alias, name in facts.aliases.items() if alias not in stale and name not in stale}
    for page in client.pages_named(map(file_title, wanted), WANTED_WITH_TEXT):
        take_file(client, facts, page)
    # Some names turned out to be redirects to files that are not known yet.
    if targets := {facts.aliases[name] for name in wanted if name in facts.aliases} - facts.files.keys() - stale:
        ask_files(client, facts, targets)


def ask_files_using(client: WikiClient, facts: Facts, templates: Iterable[str]) -> None:
    """Request again the files whose pages include one of these templates, which may give them categories."""
    generator: Params = {"generator": "transcludedin", "gtinamespace": FILE_NAMESPACE, "gtilimit": "max"}
    known = set(facts.files)
    for page in client.pages_named(sorted(set(templates)), {**generator, **WANTED}):
        take_file(client, facts, page)
    facts.prune(client.source, selected_categories(client))
    # Files that a template newly put into a selected category; their own pages were not read yet.
    if fresh := facts.files.keys() - known:
        ask_files(client, facts, fresh)


def take_file(client: WikiClient, facts: Facts, page: Json) -> None:
    """Add what one page of an answer says of a file."""
    # A red link, or the page of a deleted file.
    if not (infos := page.get("imageinfo")):
        return
    # Of an odd answer about one file, a row is left that says `hidden`.
    info, page_name = next(iter(objects_in(infos)), {}), name_of(page["title"])
    name = name_of(text_of(info.get("canonicaltitle")) or page["title"])
    if name != page_name:
        # A redirect comes with its own title and categories, and with the imageinfo of its target.
        facts.aliases[page_name] = name
        return
    facts.files[name] = _file(name, page, info)
    for redirect in filter(_has_title, objects_in(page.get("redirects"))):
        facts.aliases[name_of(redirect["title"])] = name
    text = wikitext_of(page)
    if text is not None:
        title = file_title(name)
        facts.unread.pop(title, None)
        try:
            facts.file_pages[name] = read_file_page(text, client.namespaces)
        except GivenUp as reason:
            facts.unread[title] = str(reason)
            log.warning("%s is not read: %s; its licence and description stay as they were", title, reason)


def selected_categories(client: WikiClient) -> frozenset[str]:
    """Names of the source's categories, without 'Category:'."""
    spaces = client.namespaces
    return frozenset(
        spaces.category_name(name) or spaces.normal(name, CATEGORY_NAMESPACE) for name in client.source.categories
    )


def selection(source: Source) -> str:
    """What a source selects, in words."""
    match source.select:
        case "pages":
            return "shown on " + ", ".join(source.pages)
        case "categories":
            return "in " + ", ".join(source.categories)
        case "all":
            return "every file"


def wikitext_of(page: Json) -> str | None:
    """The page's wikitext; None if it is deleted or hidden, or not wikitext (scripts, style sheets, data)."""
    for revision in objects_in(page.get("revisions"))[:1]:
        slots = revision.get("slots")
        # MediaWiki before 1.32 knows no slots.
        main = slots.get("main") if isinstance(slots, dict) else revision
        if not isinstance(main, dict) or main.get("contentmodel", "wikitext") != "wikitext":
            return None
        if isinstance(main.get("content"), str):
            return str(main["content"])
    return None


def _generators(client: WikiClient) -> Iterator[Params]:
    source = client.source
    match source.select:
        case "pages":
            for title in source.pages:
                yield {"generator": "images", "gimlimit": "max", "titles": title, "redirects": 1}
        case "categories":
            for category in sorted(selected_categories(client)):
                title = f"Category:{category}"
                yield {"generator": "categorymembers", "gcmtitle": title, "gcmtype": "file", "gcmlimit": "max"}
        case "all":
            yield {"generator": "allimages", "gailimit": "max"}


def _file(name: str, page: Json, info: Json) -> WikiFile:
    sha1 = text_of(info.get("sha1")).lower()
    return WikiFile(
        name=name,
        page_id=number_of(page.get("pageid")),
        # Nobody's password is written into a catalogue; the address is refused when it is fetched.
        url=without_login(text_of(info.get("url"))),
        # It names a file in the lake, so nothing but a sha1 is accepted.
        sha1=sha1 if _SHA1.fullmatch(sha1) else "",
        bytes=number_of(info.get("size")) or 0,
        mime=text_of(info.get("mime")),
        width=number_of(info.get("width"), 1 << 30) or 0,
        height=number_of(info.get("height"), 1 << 30) or 0,
        uploaded_at=text_of(info.get("timestamp")),
        uploader=text_of(info.get("user")) or None,
        categories=tuple(
            sorted(
                name_of(category["title"]) for category in objects_in(page.get("categories")) if _has_title(category)
            )
        ),
    )


def _has_title(entry: Json) -> bool:
    return isinstance(entry.get("title"), str)
