"""File names: one picture is 'File:Ada_Birch.png', 'image:ada Birch.png' or 'File:Ada%20Birch.png' on a wiki's pages.

A *name* is the normal form without the namespace: 'Ada Birch.png'. A *title* is 'File:' + name, whatever the wiki's
own language calls that namespace. Titles that the API gives are in their normal form and taken as they are
(`name_of`): only wikitext has entities and %20.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.entities import html5
from typing import Any

from sp_data.wiki.parse.words import Words

MEDIA_NAMESPACE = -2
FILE_NAMESPACE = 6
TEMPLATE_NAMESPACE = 10
CATEGORY_NAMESPACE = 14

_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY = re.compile(r"&(?:[^\W_]+|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_DIRECTION_MARKS = re.compile(r"[\u200e\u200f\u202a-\u202e]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SPACES = re.compile(r"[_\s\u180e]+")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,5}$")
_PICTURE = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|bmp|tiff?|avif|ico)$", re.IGNORECASE)
_DOTTED_I = frozenset({"tr", "az", "kaa"})
"""Languages in which MediaWiki capitalises i as İ. No part of siteinfo tells."""
_ENGLISH_NAMES = {
    MEDIA_NAMESPACE: ("media",),
    FILE_NAMESPACE: ("file", "image"),
    TEMPLATE_NAMESPACE: ("template",),
    CATEGORY_NAMESPACE: ("category",),
}


@dataclass(frozen=True)
class Namespaces:
    """A wiki's own names, which its wikitext is read by. Those of namespaces are in lower case: {'file', 'datei'}."""

    file: frozenset[str]
    category: frozenset[str]
    template: frozenset[str] = frozenset(_ENGLISH_NAMES[TEMPLATE_NAMESPACE])
    media: frozenset[str] = frozenset(_ENGLISH_NAMES[MEDIA_NAMESPACE])
    language: str = "en"
    variants: tuple[str, ...] = ()
    """Scripts and dialects that the wiki converts its text to: ('zh', 'zh-hans', 'zh-hant', ...)."""
    case_sensitive: frozenset[int] = frozenset()
    """Namespaces whose titles may start with a small letter ($wgCapitalLinks)."""
    languages: frozenset[str] = frozenset()
    """Prefixes of links to the same page in another language, which the page's text does not show: {'de', 'fr'}."""
    words: Words = field(default_factory=Words)

    @classmethod
    def of_siteinfo(cls, query: Mapping[str, Any]) -> Namespaces:
        """From the API's siteinfo and allmessages; the English names are always included."""
        names = {number: set(english) for number, english in _ENGLISH_NAMES.items()}
        case_sensitive = set()
        for space in query.get("namespaces", {}).values():
            number = space["id"]
            if space.get("case") == "case-sensitive":
                case_sensitive.add(number)
            if number in names:
                names[number].update((_folded(space["name"]), _folded(space.get("canonical", ""))))
        for space in query.get("namespacealiases", ()):
            if space["id"] in names:
                names[space["id"]].add(_folded(space["alias"]))
        return cls(
            file=frozenset(names[FILE_NAMESPACE] - {""}),
            category=frozenset(names[CATEGORY_NAMESPACE] - {""}),
            template=frozenset(names[TEMPLATE_NAMESPACE] - {""}),
            media=frozenset(names[MEDIA_NAMESPACE] - {""}),
            language=str(query.get("general", {}).get("lang") or "en"),
            variants=tuple(str(variant["code"]) for variant in query.get("general", {}).get("variants", ())),
            case_sensitive=frozenset(case_sensitive),
            languages=frozenset(
                _folded(wiki["prefix"]) for wiki in query.get("interwikimap", ()) if "language" in wiki
            ),
            words=Words.of_answer(query),
        )

    def file_name(self, target: str) -> str | None:
        """Name of the file that a link such as 'Image:ada_Birch.png' points to, None if it points elsewhere."""
        return self._after(target, self.file, FILE_NAMESPACE)

    def category_name(self, target: str) -> str | None:
        """'Category:Fan art' -> 'Fan art', None for other links."""
        return self._after(target, self.category, CATEGORY_NAMESPACE)

    def template_name(self, target: str) -> str:
        """'Template:fair use', 'fair_use' -> 'Fair use'."""
        return self._after(target, self.template, TEMPLATE_NAMESPACE) or self.normal(target, TEMPLATE_NAMESPACE)

    def is_media(self, target: str) -> bool:
        """Whether a link leads to a file's bytes: 'Media:Theme.ogg'."""
        return self._after(target, self.media, FILE_NAMESPACE) is not None

    def is_other_language(self, target: str) -> bool:
        """Whether a link leads to this page in another language: 'de:Ada'."""
        prefix, colon, _ = target.partition(":")
        return bool(colon) and _folded(prefix) in self.languages

    def normal(self, text: str, namespace: int = FILE_NAMESPACE) -> str:
        """`normal_name` by the wiki's own rules for capitals."""
        text = _clean(text)
        return text if namespace in self.case_sensitive else _capitalised(text, self.language)

    def _after(self, target: str, prefixes: frozenset[str], namespace: int) -> str | None:
        if "&" in target:
            target = unescape(target)
        prefix, colon, rest = target.partition(":")
        # A link that starts with a colon only links to the page; it does not show the file.
        if not colon or _folded(prefix) not in prefixes:
            return None
        return self.normal(rest.partition("#")[0], namespace) or None


ENGLISH = Namespaces(
    file=frozenset(_ENGLISH_NAMES[FILE_NAMESPACE]), category=frozenset(_ENGLISH_NAMES[CATEGORY_NAMESPACE])
)


def normal_name(text: str) -> str:
    """'ada_Birch.png' -> 'Ada Birch.png', as MediaWiki would: entities, %20, underscores, marks of direction."""
    return _capitalised(_clean(text), "en")


def name_of(title: str) -> str:
    """'Datei:Ada Birch.png' -> 'Ada Birch.png', of a title that the API gave.

    MediaWiki allows no control characters in titles; those that a hostile wiki sends become spaces.
    """
    return _CONTROLS.sub(" ", title.partition(":")[2])


def unescape(text: str) -> str:
    """The text with its entities resolved. Unlike in HTML, one needs its semicolon: 'Kenny&ethan.png' has none."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]) if _is_known(entity[0][1:]) else entity[0], text)


def _is_known(entity: str) -> bool:
    return entity.startswith("#") or entity in html5


def _folded(prefix: str) -> str:
    return _SPACES.sub(" ", _DIRECTION_MARKS.sub("", prefix)).strip().casefold()


def _clean(text: str) -> str:
    if "%" in text:
        text = _PERCENT.sub(_unquoted, text)
    if "&" in text:
        text = unicodedata.normalize("NFC", unescape(text))
    return _SPACES.sub(" ", _DIRECTION_MARKS.sub("", text)).strip()


def _unquoted(match: re.Match[str]) -> str:
    """'%20' -> ' '; what is no UTF-8 stays as it is."""
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return match[0]


def _capitalised(text: str, language: str) -> str:
    first = text[:1]
    if first == "i" and language.partition("-")[0] in _DOTTED_I:
        return "İ" + text[1:]
    capital = first.upper()
    # MediaWiki does not capitalise a letter whose capital is more than one letter (German sharp s).
    return capital + text[1:] if len(capital) == 1 else text


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
