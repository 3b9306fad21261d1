"""Every caption a picture could have, each with where it was found, ranked. chosen.py says which one it gets.

    Caption(text='Ada at the lake', source='gallery', page='Ada Birch')

    given              what a list of addresses says beside an address
    gallery, thumb     what a page says right below the picture
    infobox-caption    the same inside an infobox
    infobox            the infobox's fields as a sentence
    alt                the picture in words, for those who cannot see it
    summary            the file's own page
    title, lead        the page that owns the picture: its title, its first sentence
    section            the heading under which a page shows it
    categories         of the page that owns the picture
    name               the cleaned file name

A page *owns* a picture if its infobox shows it, or if its title is the picture's cleaned name. Title, lead, categories
and infobox fields come from the owning page only: a gallery on another character's page would lend the wrong words.
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
"""Smaller is better; a gallery and a thumb are worth the same."""

TELLING: frozenset[SourceKind] = frozenset(
    {"given", "gallery", "thumb", "infobox-caption", "infobox", "alt", "summary", "lead"}
)
"""Kinds that can say what is to be seen; headings, categories and names cannot."""

_KIND: dict[UseKind, SourceKind] = {
    "gallery": "gallery",
    "thumb": "thumb",
    "infobox": "infobox-caption",
    # Without a frame nobody sees the caption: browsers show it in the picture's place, or when it is pointed at.
    "inline": "alt",
}
NOTHING_SAID = frozenset(
    {"gallery", "galleries", "images", "image gallery", "pictures", "trivia", "references", "notes"}
)
"""Section headings that tell nothing of a picture, lower case."""
UNSAID_FIELDS = frozenset({"name", "title", "box title", "image", "caption", "imagecaption", "image caption", "alt"})
LONGEST_FIELD = 60
"""Characters of an infobox value that still reads as part of a sentence."""
LONGEST_CAPTION = 1000


@dataclass(frozen=True, slots=True)
class CaptionCandidate:
    text: str
    source: SourceKind
    page: str


@dataclass(frozen=True, slots=True)
class Owner:
    """The page that a picture belongs to, with the infobox that speaks of it."""

    page: Page
    infobox: Infobox | None

    @property
    def fields(self) -> Mapping[str, str]:
        """The infobox's fields; a name that it leaves out is the page's title, as in Fandom's infoboxes."""
        return {} if self.infobox is None else {"name": self.page.title, **self.infobox.fields}

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """What the infobox says of its subject, without its name and what only labels the picture."""
        return tuple(
            (field, value)
            for field, value in self.fields.items()
            if field.rstrip("0123456789 ") not in UNSAID_FIELDS and len(value) <= LONGEST_FIELD
        )


class Index:
    """What the pages of a wiki say about each listed file. Pages that say nothing of them are not held.

    `aliases`: other name of a file -> its name.
    """

    def __init__(self, names: Iterable[str], aliases: Mapping[str, str]) -> None:
        self._named = {name: name for name in names} | dict(aliases)
        self._by_words: dict[str, list[str]] = defaultdict(list)
        for name in set(self._named.values()):
            self._by_words[owner_key(cleaned_name(name))].append(name)
        self._uses: dict[str, list[tuple[Page, Use]]] = defaultdict(list)
        self._owners: dict[str, list[Owner]] = defaultdict(list)

    def add(self, page: Page) -> None:
        for infobox in page.infoboxes:
            for use in infobox.pictures:
                if name := self._named.get(use.name):
                    self._uses[name].append((page, use))
                    self._owners[name].append(Owner(page, infobox))
        for use in page.uses:
            if name := self._named.get(use.name):
                self._uses[name].append((page, use))
        for name in self._by_words.get(owner_key(page.title), ()):
            self._owners[name].append(Owner(page, page.infoboxes[0] if page.infoboxes else None))

    def owner(self, name: str) -> Owner | None:
        """The page that owns a file: rather one whose infobox shows it, rather one of its name, rather no subpage."""
        words = owner_key(cleaned_name(name))

        def preference(owner: Owner) -> tuple[bool, bool, bool, str]:
            title = owner.page.title
            shows = owner.infobox is not None and any(self._named.get(u.name) == name for u in owner.infobox.pictures)
            return (not shows, owner_key(title) != words, "/" in title, title)

        return min(self._owners.get(name, ()), key=preference, default=None)

    def candidates(self, name: str, summary: str) -> list[CaptionCandidate]:
        """Every caption of a file, best first, none twice. `summary`: what its own page says.

        Among equals the owning page speaks first, then pages by title.
        """
        owner = self.owner(name)
        found: list[CaptionCandidate] = []
        for page, use in self._uses.get(name, ()):
            found.append(CaptionCandidate(use.caption, _KIND[use.kind], page.title))
            if use.alt != use.caption:
                found.append(CaptionCandidate(use.alt, "alt", page.title))
            if use.section.lower() not in NOTHING_SAID:
                found.append(CaptionCandidate(use.section, "section", page.title))
        if owner is not None:
            title = owner.page.title
            found.append(CaptionCandidate(_sentence(owner), "infobox", title))
            found.append(CaptionCandidate(title, "title", title))
            found.append(CaptionCandidate(owner.page.lead, "lead", title))
            found.append(CaptionCandidate(", ".join(owner.page.categories), "categories", title))
        found.append(CaptionCandidate(summary, "summary", file_title(name)))
        found.append(CaptionCandidate(cleaned_name(name), "name", file_title(name)))
        own = owner.page.title if owner else ""
        said = dict.fromkeys(
            CaptionCandidate(c.text[:LONGEST_CAPTION], c.source, c.page) for c in found if _says(c.text, name)
        )
        return sorted(said, key=lambda c: (RANK[c.source], c.page != own, c.page))


def _sentence(owner: Owner) -> str:
    """'Ada Birch: coat red, hat blue'."""
    said = ", ".join(f"{field} {value}" for field, value in owner.attributes)
    return f"{owner.fields['name']}: {said}" if said else ""


def _says(text: str, name: str) -> bool:
    """Whether a text says more than a file name, which is what alt texts are where nobody wrote one."""
    return bool(text) and text != name and not looks_like_picture(text)
