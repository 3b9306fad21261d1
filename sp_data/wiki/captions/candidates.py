"""Every caption a picture could have, ranked, each with its source. choose.py picks the one it gets.

    CaptionCandidate(text='Ada at the lake', source='gallery', page='Ada Birch')

    given              the caption in a list of addresses
    gallery, thumb     the text right below the picture on a page
    infobox-caption    the same inside an infobox
    infobox            the infobox's fields as a sentence
    alt                the alt text: the picture described for readers who cannot see it
    summary            the description on the file's own page
    title, lead        the page that owns the picture: its title, its first sentence
    section            the heading under which a page shows it
    categories         of the page that owns the picture
    name               the cleaned file name

A page *owns* a picture if its infobox shows it, or if its title is the picture's cleaned name. Title, lead, categories
and infobox fields come from the owning page only: those of another character's page, whose gallery shows the picture,
would describe the wrong character.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sp_data.wiki.parse.page import Infobox, Page, Use, UseKind
from sp_data.wiki.parse.titles import cleaned_name, file_title, looks_like_picture, owner_key

SourceKind = Literal[
    "given",
    "gallery",
    "thumb",
    "infobox-caption",
    "infobox",
    "alt",
    "summary",
    "title",
    "lead",
    "section",
    "categories",
    "name",
]
RANK: dict[str, int] = {kind: rank for rank, kind in enumerate(get_args(SourceKind))} | {"thumb": 1}
"""Kind -> rank. Smaller is better; gallery and thumb have the same rank."""

TELLING: frozenset[SourceKind] = frozenset(
    {"given", "gallery", "thumb", "infobox-caption", "infobox", "alt", "summary", "lead"}
)
"""Kinds that can describe what a picture shows; headings, categories and names cannot."""

_KIND: dict[UseKind, SourceKind] = {
    "gallery": "gallery",
    "thumb": "thumb",
    "infobox": "infobox-caption",
    # Without a frame the caption is not visible: browsers show it as alt text or as a tooltip.
    "inline": "alt",
}
EMPTY_HEADINGS = frozenset(
    {"gallery", "galleries", "images", "image gallery", "pictures", "trivia", "references", "notes"}
)
"""Section headings (lower case) that do not describe a picture."""
SKIPPED_FIELDS = frozenset({"name", "title", "box title", "image", "caption", "imagecaption", "image caption", "alt"})
LONGEST_FIELD = 60
"""Longest infobox value, in characters, that still reads as part of a sentence."""
LONGEST_CAPTION = 1000


@dataclass(frozen=True, slots=True)
class CaptionCandidate:
    text: str
    source: SourceKind
    page: str


@dataclass(frozen=True, slots=True)
class Owner:
    """The page that owns a picture, with the infobox that describes its subject."""

    page: Page
    infobox: Infobox | None

    @property
    def fields(self) -> Mapping[str, str]:
        """The infobox's fields; if `name` is missing, it is the page's title, as in Fandom's infoboxes."""
        return {} if self.infobox is None else {"name": self.page.title, **self.infobox.fields}

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """The infobox's (field, value) pairs about its subject, without its name and the picture's own fields."""
        return tuple(
            (field, value)
            for field, value in self.fields.items()
            if field.rstrip("0123456789 ") not in SKIPPED_FIELDS and len(value) <= LONGEST_FIELD
        )


class Index:
    """What the pages of a wiki say about each listed file. Pages that mention none of them are not kept.

    `aliases`: other name of a file -> its name.
    """

    def __init__(self, names: Iterable[str], aliases: Mapping[str, str]) -> None:
        self._names = {name: name for name in names} | dict(aliases)
        self._by_words: dict[str, list[str]] = defaultdict(list)
        for name in set(self._names.values()):
            self._by_words[owner_key(cleaned_name(name))].append(name)
        self._uses: dict[str, list[tuple[Page, Use]]] = defaultdict(list)
        self._owners: dict[str, list[Owner]] = defaultdict(list)

    def add(self, page: Page) -> None:
        for infobox in page.infoboxes:
            for use in infobox.pictures:
                if name := self._names.get(use.name):
                    self._uses[name].append((page, use))
                    self._owners[name].append(Owner(page, infobox))
        for use in page.uses:
            if name := self._names.get(use.name):
                self._uses[name].append((page, use))
        for name in self._by_words.get(owner_key(page.title), ()):
            self._owners[name].append(Owner(page, page.infoboxes[0] if page.infoboxes else None))

    def owner(self, name: str) -> Owner | None:
        """The page that owns a file.

        Preferred are, in this order: pages whose infobox shows the file, pages of its name, pages that are no subpages;
        then the first by title.
        """
        words = owner_key(cleaned_name(name))

        def preference(owner: Owner) -> tuple[bool, bool, bool, str]:
            title = owner.page.title
            shows = owner.infobox is not None and any(self._names.get(u.name) == name for u in owner.infobox.pictures)
            return (not shows, owner_key(title) != words, "/" in title, title)

        return min(self._owners.get(name, ()), key=preference, default=None)

    def candidates(self, name: str, summary: str) -> list[CaptionCandidate]:
        """Every caption of a file, best first, without duplicates. `summary`: that of the file's own page.

        Captions of equal rank: first the owning page's, then the others by page title.
        """
        owner = self.owner(name)
        captions: list[CaptionCandidate] = []
        for page, use in self._uses.get(name, ()):
            captions.append(CaptionCandidate(use.caption, _KIND[use.kind], page.title))
            if use.alt != use.caption:
                captions.append(CaptionCandidate(use.alt, "alt", page.title))
            if use.section.lower() not in EMPTY_HEADINGS:
                captions.append(CaptionCandidate(use.section, "section", page.title))
        if owner is not None:
            title = owner.page.title
            captions.append(CaptionCandidate(_sentence(owner), "infobox", title))
            captions.append(CaptionCandidate(title, "title", title))
            captions.append(CaptionCandidate(owner.page.lead, "lead", title))
            captions.append(CaptionCandidate(", ".join(owner.page.categories), "categories", title))
        captions.append(CaptionCandidate(summary, "summary", file_title(name)))
        captions.append(CaptionCandidate(cleaned_name(name), "name", file_title(name)))
        owner_title = owner.page.title if owner else ""
        unique = dict.fromkeys(
            CaptionCandidate(c.text[:LONGEST_CAPTION], c.source, c.page) for c in captions if _is_caption(c.text, name)
        )
        return sorted(unique, key=lambda c: (RANK[c.source], c.page != owner_title, c.page))


def _sentence(owner: Owner) -> str:
    """'Ada Birch: coat red, hat blue'."""
    attributes = ", ".join(f"{field} {value}" for field, value in owner.attributes)
    return f"{owner.fields['name']}: {attributes}" if attributes else ""


def _is_caption(text: str, name: str) -> bool:
    """Whether a text is more than a file name, which is what a wiki puts in where nobody wrote an alt text."""
    return bool(text) and text != name and not looks_like_picture(text)
