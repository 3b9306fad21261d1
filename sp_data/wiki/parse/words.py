"""The words of a wiki's own language that stand in its markup: `mini` for `thumb`, a heading `Lizenz`.

    [[Datei:Ada.png|mini|hochkant=1.5|alternativtext=ein Kind|Ada am See]]      meta=siteinfo: magicwords
    __KEIN_INHALTSVERZEICHNIS__  {{SEITENNAME}}                                 meta=siteinfo: magicwords, variables
    == Lizenz ==   {{Information|Beschreibung=...}}                             meta=allmessages: MESSAGES
    {{Bild-GFDL}}                                                               meta=allmessages: MediaWiki:Licenses

English words hold on every wiki: all of MediaWiki's languages fall back to English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

MESSAGES = (
    "license-header",
    "license",
    "licenses",
    "filedesc",
    "fileuploadsummary",
    "listfiles_description",
    "upload-form-label-infoform-description",
)
"""Names of the messages that are asked for: what the wiki's own upload form writes onto the page of a file."""

OptionKind = Literal["alt", "frame", "setting", "word"]
"""`alt=...`; `thumb` and `frame`; an option with a value, such as `200px`; any other, such as `left`."""

_ENGLISH: dict[str, tuple[str, ...]] = {
    "img_alt": ("alt=$1",),
    "img_baseline": ("baseline",),
    "img_border": ("border",),
    "img_bottom": ("bottom",),
    "img_center": ("center", "centre"),
    "img_class": ("class=$1",),
    "img_framed": ("frame", "framed", "enframed"),
    "img_frameless": ("frameless",),
    "img_lang": ("lang=$1",),
    "img_left": ("left",),
    "img_link": ("link=$1",),
    # Fandom's galleries.
    "img_linktext": ("linktext=$1", "position=$1"),
    "img_manualthumb": ("thumbnail=$1", "thumb=$1"),
    "img_middle": ("middle",),
    "img_none": ("none",),
    "img_page": ("page=$1",),
    "img_right": ("right",),
    "img_sub": ("sub",),
    "img_super": ("super", "sup"),
    "img_text_bottom": ("text-bottom",),
    "img_text_top": ("text-top",),
    "img_thumbnail": ("thumb", "thumbnail"),
    "img_top": ("top",),
    "img_upright": ("upright", "upright=$1", "upright $1"),
    "img_width": ("$1px", "$1 px"),
    "timedmedia_endtime": ("end=$1",),
    "timedmedia_starttime": ("start=$1",),
    "timedmedia_thumbtime": ("thumbtime=$1",),
}
_OPTIONS = ("img_", "timedmedia_")
"""Prefixes of the names of magic words that are options of pictures, and of sound and video."""
_FRAMES = frozenset({"img_thumbnail", "img_framed"})
_SWITCH = re.compile(r"[_＿]{2}.+[_＿]{2}")
_NUMBER = r"\s*(?=[^\W_]*\d)[\d.,]*\s*(?:x\s*\d*)?\s*(?:px)?\s*"
_LICENCE = re.compile(
    r"\bli(?:[csz]en[cçstz]|sans)|copyright|urheberrecht|praw[ao] autorsk|diritti d.autore|direitos autorais"
    r"|derechos de autor|droits? d.auteur|лиценз|ліценз|авторск"
    r"|ライセンス|著作権|许可|許可|授权|授權"
    r"|版权|版權|라이[선센]스|저작권",
    re.IGNORECASE,
)
"""Headings such as 'Licensing', 'Lizenz', 'Licencja' or 'Лицензия', beside what the wiki's own messages say."""
_DESCRIPTIONS = ("description", "desc", "summary")


@dataclass(frozen=True)
class Words:
    """What a wiki says of its words. Each part is sorted, so that equal wikis give equal files."""

    options: tuple[tuple[str, str], ...] = ()
    """(magic word, what stands in the wikitext): ('img_thumbnail', 'mini'), ('img_width', '$1px')."""
    switches: tuple[str, ...] = ()
    """'__KEIN_INHALTSVERZEICHNIS__', ..."""
    page_name: tuple[str, ...] = ("PAGENAME",)
    variables: tuple[str, ...] = (
        *("BASEPAGENAME", "FULLPAGENAME", "NAMESPACE", "PAGENAME", "SITENAME", "SUBPAGENAME"),
    )
    """What looks like a template without being one: 'SEITENNAME', ..."""
    licence_headings: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    """Names of the field for the description in templates such as {{Information}}."""
    licences: tuple[str, ...] = ()
    """Templates that the wiki's own list of licences names (MediaWiki:Licenses)."""
    tags: tuple[str, ...] = ()
    """Tags of the wiki's extensions: 'gallery', 'ref', ..."""

    @classmethod
    def of_answer(cls, query: Mapping[str, Any]) -> Words:
        """From the API's siteinfo and allmessages; English words stand in for what the wiki does not say."""
        aliases: dict[str, set[str]] = {}
        for word in query.get("magicwords", ()):
            aliases.setdefault(str(word["name"]), set()).update(str(alias) for alias in word.get("aliases", ()))
        variables = {str(name) for name in query.get("variables", ())}
        messages = {
            str(message["name"]): str(message["content"])
            for message in query.get("allmessages", ())
            if message.get("content")
        }
        english = cls()
        of_variables = {alias.removesuffix(":") for name in variables for alias in aliases.get(name, ())}
        return cls(
            options=tuple(
                sorted((name, alias) for name, found in aliases.items() if name.startswith(_OPTIONS) for alias in found)
            ),
            switches=tuple(sorted(alias for found in aliases.values() for alias in found if _SWITCH.fullmatch(alias))),
            page_name=tuple(sorted({*english.page_name, *aliases.get("pagename", ())})),
            variables=tuple(sorted({*english.variables, *of_variables})),
            # An owner who wants no such heading blanks its message, mostly with '-'.
            licence_headings=_distinct(
                message
                for name in ("license-header", "license")
                if sum(map(str.isalpha, message := messages.get(name, ""))) > 1
            ),
            descriptions=_distinct(messages.get(name, "") for name in MESSAGES[3:]),
            licences=tuple(sorted(set(_templates(messages.get("licenses", ""))))),
            tags=tuple(sorted(str(tag).strip("<>").lower() for tag in query.get("extensiontags", ()))),
        )

    def option(self, text: str) -> tuple[OptionKind, str] | None:
        """What kind of option a part of [[File:a.png|...|...]] is, and the text of an alt; None: it is a caption.

        MediaWiki tells capitals apart and shows 'Left' as a caption; here it is an option, because it describes
        nothing.
        """
        if match := self._patterns["alt"].fullmatch(text):
            return "alt", next(group for group in match.groups() if group is not None)
        for kind in ("frame", "word", "setting"):
            if self._patterns[kind].fullmatch(text):
                return kind, ""
        return None

    def is_licence_heading(self, text: str) -> bool:
        """Whether the section under this heading is about the licence of a file."""
        folded = fold(text)
        return _LICENCE.search(folded) is not None or any(heading in folded for heading in self.licence_headings)

    def is_description(self, field: str) -> bool:
        """Whether this field of a template describes what a file shows."""
        return fold(field) in self._descriptions

    @cached_property
    def page_name_pattern(self) -> re.Pattern[str]:
        """{{PAGENAME}} in the wiki's languages."""
        return re.compile(r"\{\{\s*(?:" + "|".join(map(re.escape, self.page_name)) + r")\s*\}\}")

    @cached_property
    def switch_pattern(self) -> re.Pattern[str]:
        """__NOTOC__ in the wiki's languages."""
        longest_first = sorted(self.switches, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longest_first), r"__[A-Z]+__"]), re.IGNORECASE)

    @cached_property
    def _descriptions(self) -> frozenset[str]:
        return frozenset(fold(field) for field in (*_DESCRIPTIONS, *self.descriptions))

    @cached_property
    def _patterns(self) -> dict[OptionKind, re.Pattern[str]]:
        parts: dict[OptionKind, list[str]] = {"alt": [], "frame": [], "word": [], "setting": []}
        english = [(name, alias) for name, found in _ENGLISH.items() for alias in found]
        for name, alias in dict.fromkeys([*self.options, *english]):
            before, has_value, after = alias.partition("$1")
            if not has_value:
                parts["frame" if name in _FRAMES else "word"].append(re.escape(alias))
            elif name == "img_alt":
                parts["alt"].append(f"{re.escape(before)}(.*){re.escape(after)}")
            elif before.endswith(("=", "＝")):
                parts["setting"].append(f"{re.escape(before)}.*{re.escape(after)}")
            elif name != "img_page" or before.endswith("_"):
                # 'upright 1.5' is an option and 'upright and proud' is a caption. So is 'page 3': only files with
                # pages, such as PDF, have that option.
                parts["setting"].append(f"{re.escape(before)}{_NUMBER}{re.escape(after)}")
        return {kind: re.compile("|".join(texts), re.IGNORECASE | re.DOTALL) for kind, texts in parts.items()}


def fold(text: str) -> str:
    """'Conditions d’utilisation :' -> "conditions d'utilisation": how headings and fields are compared."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("_", " ")
    return " ".join(text.split()).rstrip(" :")


def _distinct(messages: Iterable[str]) -> tuple[str, ...]:
    """Messages without their colons, each once; 'Beschreibung/Quelle' names two fields, and so none."""
    return tuple(sorted({fold(message) for message in messages if "/" not in message} - {""}))


def _templates(licences: str) -> list[str]:
    """The templates in MediaWiki:Licenses, whose lines are '** template|what the upload form shows'."""
    lines = (line.lstrip("* ").strip() for line in licences.splitlines() if line.startswith("*") and "|" in line)
    return [name for line in lines if (name := re.split(r"[|{}]", line.lstrip("{"))[0].strip())]
