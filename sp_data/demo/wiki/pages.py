"""A page of the made-up wiki, and what is read from its text: categories, pictures, templates, the redirect's target.

It understands only the wikitext that wikitext.py writes, and templates without arguments.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sp_data.demo.wiki import titles

LINK = re.compile(r"\[\[(File|Category):([^|\]]+)")
GALLERY_LINE = re.compile(r"^([^|\n<>\[\]{}=]+\.\w{3,4})\|", re.MULTILINE)
INFOBOX_IMAGE = re.compile(r"^\|image = (.+)$", re.MULTILINE)
TEMPLATE = re.compile(r"\{\{([A-Z][\w -]*?)\s*[|}\n]")
BARE_TEMPLATE = re.compile(r"\{\{([A-Z][\w -]*?)\}\}")
INCLUDED = re.compile(r"<includeonly>(.*?)</includeonly>", re.DOTALL)
REDIRECT = re.compile(r"^#REDIRECT \[\[(.+?)\]\]")


@dataclass(frozen=True, slots=True)
class Draft:
    """A page as its author wrote it."""

    page_id: int
    revision_id: int
    timestamp: str  # ISO 8601, as the API gives it
    wikitext: str


@dataclass(frozen=True, slots=True)
class WikiPage:
    """One page at its newest revision. `categories`, `images` and `templates` are titles with their prefix, sorted."""

    page_id: int
    revision_id: int
    namespace: int
    title: str
    timestamp: str
    wikitext: str
    categories: tuple[str, ...]
    images: tuple[str, ...]
    templates: tuple[str, ...]
    redirect: str | None

    @property
    def draft(self) -> Draft:
        return Draft(self.page_id, self.revision_id, self.timestamp, self.wikitext)


def pages_of(drafts: Mapping[str, Draft]) -> dict[str, WikiPage]:
    """Title -> page, for all pages of a wiki. What a template includes counts for the pages that use it."""
    included = {
        title.removeprefix("Template:"): match[1]
        for title, draft in drafts.items()
        if title.startswith("Template:") and (match := INCLUDED.search(draft.wikitext))
    }
    return {title: _page(title, draft, included) for title, draft in drafts.items()}


def with_page(pages: Mapping[str, WikiPage], title: str, draft: Draft) -> dict[str, WikiPage]:
    """The pages with one of them added or replaced."""
    if title.startswith("Template:"):
        return pages_of({other: page.draft for other, page in pages.items()} | {title: draft})
    return {**pages, title: _page(title, draft, included_of(pages.values()))}


def expanded(text: str, included: Mapping[str, str]) -> str:
    """The text with its bare templates filled in. `included`: name of a template -> what it adds to a page."""
    return BARE_TEMPLATE.sub(lambda match: included.get(match[1], ""), text)


def included_of(pages: Iterable[WikiPage]) -> dict[str, str]:
    """What `expanded` takes, from the templates among these pages."""
    return {
        page.title.removeprefix("Template:"): match[1]
        for page in pages
        if page.namespace == 10 and (match := INCLUDED.search(page.wikitext))
    }


def _page(title: str, draft: Draft, included: Mapping[str, str]) -> WikiPage:
    # The text in a template's <includeonly> belongs to the pages that use the template, not to the template itself.
    own = "" if title.startswith("Template:") else draft.wikitext
    text = expanded(own, included)
    linked = [name for kind, name in LINK.findall(text) if kind == "File"]
    images = {f"File:{name}" for name in (*linked, *GALLERY_LINE.findall(text), *INFOBOX_IMAGE.findall(text))}
    redirect = REDIRECT.match(own)
    return WikiPage(
        page_id=draft.page_id,
        revision_id=draft.revision_id,
        namespace=titles.namespace_of(title),
        title=title,
        timestamp=draft.timestamp,
        wikitext=draft.wikitext,
        categories=tuple(sorted({f"Category:{name}" for kind, name in LINK.findall(text) if kind == "Category"})),
        images=tuple(sorted(images)),
        templates=tuple(sorted({f"Template:{name}" for name in TEMPLATE.findall(own)})),
        redirect=redirect[1] if redirect else None,
    )
