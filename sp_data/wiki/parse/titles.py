"""File names: one picture is 'File:Ada_Birch.png', 'image:ada Birch.png' or 'File:Ada%20Birch.png' on a wiki's pages.

A *name* is the normal form without the namespace: 'Ada Birch.png'. A *title* is 'File:' + name, whatever the wiki's
own language calls that namespace. Wikis with case-sensitive first letters are not supported.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

FILE_NAMESPACE = 6
CATEGORY_NAMESPACE = 14

_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_INVISIBLE = re.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\ufeff]")
_SPACES = re.compile(r"[_\s]+")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,5}$")
_PICTURE = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|bmp|tiff?|avif|ico)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """A wiki's names for files and categories, lower case: {'file', 'image', 'datei', 'bild'}."""

    file: frozenset[str]
    category: frozenset[str]

    @classmethod
    def of_siteinfo(cls, query: Mapping[str, Any]) -> Namespaces:
        """From the API's siteinfo; the English names are always included."""
        names: dict[int, set[str]] = {FILE_NAMESPACE: set(ENGLISH.file), CATEGORY_NAMESPACE: set(ENGLISH.category)}
        for space in query.get("namespaces", {}).values():
            if space["id"] in names:
                names[space["id"]].update((space["name"].lower(), space.get("canonical", "").lower()))
        for space in query.get("namespacealiases", ()):
            if space["id"] in names:
                names[space["id"]].add(space["alias"].lower())
        return cls(frozenset(names[FILE_NAMESPACE] - {""}), frozenset(names[CATEGORY_NAMESPACE] - {""}))

    def file_name(self, target: str) -> str | None:
        """Name of the file that a link such as 'Image:ada_Birch.png' points to, None if it points elsewhere."""
        return _after(target, self.file)

    def category_name(self, target: str) -> str | None:
        """'Category:Fan art' -> 'Fan art', None for other links."""
        return _after(target, self.category)


ENGLISH = Namespaces(file=frozenset({"file", "image"}), category=frozenset({"category"}))


def _after(target: str, prefixes: frozenset[str]) -> str | None:
    prefix, colon, rest = target.partition(":")
    # A link that starts with a colon only links to the page; it does not show the file.
    if not colon or _SPACES.sub(" ", prefix).strip().lower() not in prefixes:
        return None
    return normal_name(rest) or None


def normal_name(text: str) -> str:
    """'ada_Birch.png' -> 'Ada Birch.png', as MediaWiki would: entities, %20, underscores, invisible marks."""
    text = html.unescape(text)
    if _PERCENT.search(text):
        text = unquote(text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
    first = text[:1].upper()
    # MediaWiki does not capitalise a letter whose capital is more than one letter (German sharp s).
    return first + text[1:] if len(first) == 1 else text


def file_title(name: str) -> str:
    """'Ada Birch.png' -> 'File:Ada Birch.png'."""
    return f"File:{name}"


def looks_like_picture(text: str) -> bool:
    """Whether a bare value, such as an infobox's `image = Ada Birch.png`, can be a picture's name."""
    return "\n" not in text and len(text) <= 240 and _PICTURE.search(text) is not None


def cleaned_name(name: str) -> str:
    """'4th-graders-leslie.png' -> '4th graders leslie': the words of a file name."""
    words = _EXTENSION.sub("", name).replace("-", " ")
    return _SPACES.sub(" ", words).strip() or name


def owner_key(words: str) -> str:
    """A key that is equal for a page's title and for the cleaned name of the picture that shows the page's subject."""
    return _SPACES.sub(" ", words.replace("-", " ")).strip().casefold()
