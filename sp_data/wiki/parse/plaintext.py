"""Wikitext -> the words a reader sees: no markup, no references, no templates, no tables.

"'''Ada''' is a [[Kid|kid]].<ref>Page 3</ref> {{Citation needed}}"  ->  'Ada is a kid.'
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

from sp_data.wiki.parse.titles import Namespaces

SKIPPED_TAGS = frozenset(
    {"ref", "references", "gallery", "table", "style", "script", "math", "chem", "score", "timeline", "imagemap"}
    | {"templatedata", "syntaxhighlight", "source", "pre", "noinclude", "noscript"}
)
"""Tags whose contents are not part of a sentence, besides those of the wiki's extensions."""
TEXT_TAGS = frozenset({"nowiki", "poem", "tabber", "section", "spoiler", "langconvert"})
"""Tags of extensions whose contents are."""
LIST_MARK = "\0"
"""Marks a list's item while paragraphs are separated."""

_MARKUP = re.compile(r"[\[\]{}<>&\n|~]|''|[_＿]{2}|://|mailto:|^\s*[*#:;=-]")
"""Characters and words that may be markup."""
_REMAINS = re.compile(r"'{2,}|\[\[|\]\]|\{\{+|\}\}+")
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bJr)(?<!\bSr)(?<!\bvs)"
    r"[.!?][\"')\]”’]*(?=\s+[\"'(\[“‘]?[^\W_a-z])"
)


def parse(text: str) -> Wikicode:
    """The tree of a piece of wikitext."""
    return mwparserfromhell.parse(text)


def plain(code: Wikicode | str, spaces: Namespaces, *, line_break: str = " ") -> str:
    """The words of a piece of wikitext on one line; `line_break` replaces <br> and the starts of list items."""
    if isinstance(code, str):
        if not _MARKUP.search(code):
            # Most captions have no markup, and parsing takes a hundred times as long.
            return " ".join(code.split())
        code = parse(code)
    return _tidy("".join(_words(code.nodes, spaces)).replace(LIST_MARK, "\n").strip().replace("\n", line_break), spaces)


def first_paragraph(nodes: list[Node], spaces: Namespaces) -> str:
    """The first paragraph of running text, '' if there is none; list items and hatnotes are skipped."""
    text = "".join(_words(nodes, spaces))
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.split("\n") if LIST_MARK not in line]
        words = _tidy(" ".join(lines), spaces)
        if any(char.isalpha() for char in words):
            return words
    return ""


def first_sentence(text: str) -> str:
    """'Ada is a kid. She swims.' -> 'Ada is a kid.'; 'Dr.' and 'J. K.' end no sentence."""
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def split_options(text: str) -> list[str]:
    """'a.png|thumb|of [[Ada|her]]' -> ['a.png', 'thumb', 'of [[Ada|her]]']: bars inside links do not split."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"\[\[|\{\{|\]\]|\}\}|\|", text):
        if match[0] == "|":
            if depth == 0:
                parts.append(text[start : match.start()])
                start = match.end()
        else:
            depth = max(0, depth + (1 if match[0] in ("[[", "{{") else -1))
    return [*parts, text[start:]]


def _words(nodes: list[Node], spaces: Namespaces) -> Iterator[str]:
    for node in nodes:
        match node:
            case Text():
                yield str(node.value)
            case HTMLEntity():
                yield _character(node)
            case Wikilink():
                yield from _link(node, spaces)
            case ExternalLink():
                if node.title is not None:
                    yield from _words(node.title.nodes, spaces)
            case Heading():
                yield "\n\n"
            case Tag():
                yield from _tag(node, spaces)
            case _:
                pass  # templates, arguments, comments


def _character(entity: HTMLEntity) -> str:
    try:
        return entity.normalize()
    except (ValueError, OverflowError):
        # No such character, e.g. &#x110000;
        return str(entity)


def _link(link: Wikilink, spaces: Namespaces) -> Iterator[str]:
    target = str(link.title).strip()
    if spaces.file_name(target) or spaces.category_name(target) or spaces.is_other_language(target):
        return
    if link.text is not None:
        yield from _words(link.text.nodes, spaces)
    elif not spaces.is_media(target):
        yield target.removeprefix(":")


def _tag(tag: Tag, spaces: Namespaces) -> Iterator[str]:
    name = str(tag.tag).strip().lower()
    if tag.wiki_markup in ("*", "#", ":", ";"):
        yield LIST_MARK
    elif name in ("br", "p", "hr", "li"):
        yield "\n"
    is_text = name in TEXT_TAGS or (name not in SKIPPED_TAGS and name not in spaces.words.tags)
    if is_text and tag.contents is not None:
        yield from _words(tag.contents.nodes, spaces)


def _tidy(text: str, spaces: Namespaces) -> str:
    if "__" in text or "＿＿" in text:
        text = spaces.words.switch_pattern.sub("", text)
    return " ".join(_REMAINS.sub("", text).split())
