"""What a page shows and says, without its markup; wikitext.py and html.py each make it from their own source.

Page(title='Ada Birch', infoboxes=(Infobox({'coat': 'red'}, (Use('Ada.png', 'infobox', ...),)),), uses=(...), ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

UseKind = Literal["gallery", "thumb", "inline", "infobox"]


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a page shows a file."""

    name: str
    kind: UseKind
    caption: str
    alt: str
    section: str = ""


@dataclass(frozen=True, slots=True)
class Infobox:
    """`fields`: name (lower case, spaces) -> plain text, never empty. `pictures`: the files it shows."""

    fields: Mapping[str, str]
    pictures: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows and says, without its markup."""

    title: str
    page_id: int
    revision: int
    infoboxes: tuple[Infobox, ...]
    uses: tuple[Use, ...]
    lead: str
    categories: tuple[str, ...]

    @property
    def shown(self) -> frozenset[str]:
        """Names of the files it shows."""
        return frozenset(use.name for box in self.infoboxes for use in box.pictures) | {use.name for use in self.uses}


def field_name(text: str) -> str:
    """'Hat_kind ' -> 'hat kind': the form in which fields of infoboxes and of caption templates are compared."""
    return " ".join(text.replace("_", " ").lower().split())
