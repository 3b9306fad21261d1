"""The page of a file: its licence, its templates, and its description of the picture.

== Summary ==
Ada at the lake.                       FilePage(templates=('Fairuse',), licence='Fairuse',
== Licensing ==                                 summary='Ada at the lake.')
{{fairuse}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mwparserfromhell.nodes import Heading, Node, Template
from mwparserfromhell.wikicode import Wikicode

from sp_data.wiki.parse.plaintext import first_paragraph, parse, plain
from sp_data.wiki.parse.titles import Namespaces
from sp_data.wiki.parse.variants import resolve

_FREE = re.compile(r"(?:cc|pd|gfdl|gpl|lgpl|mit|fal)(?:\b|[- _\d])|public ?domain|attribution", re.IGNORECASE)
_OTHER = re.compile(
    r"fair ?use|non-?free|copyright|licen[cs]e|permission|screenshot|promo|trademark|self\b", re.IGNORECASE
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)?", re.IGNORECASE)
INFORMATION = "Information"
"""The template for descriptions, called like that in every language."""


@dataclass(frozen=True, slots=True)
class FilePage:
    """`templates`: their names. `licence`: one of them, or None."""

    templates: tuple[str, ...]
    licence: str | None
    summary: str


NO_PAGE = FilePage((), None, "")


def read(text: str, spaces: Namespaces) -> FilePage:
    """What the wikitext of a file's page says."""
    code = parse(resolve(text, spaces.language, spaces.variants))
    named = [(name, template) for template in code.ifilter_templates() if (name := _name(template, spaces))]
    names = [name for name, _ in named]
    return FilePage(
        templates=tuple(sorted(set(names))),
        licence=_licence(code, names, spaces),
        summary=_description(named, spaces) or _summary(code, spaces),
    )


def _name(template: Template, spaces: Namespaces) -> str:
    """The template's name; '' for what only looks like a template: parser functions, variables, arguments."""
    name = str(template.name).strip()
    if name in spaces.words.variables or set(name) & set("{}[]<>\n"):
        return ""
    name = spaces.template_name(name)
    return "" if set(name) & set("#:") else name


def _licence(code: Wikicode, names: list[str], spaces: Namespaces) -> str | None:
    """The template under a heading such as 'Licensing', else the first with the name of a licence."""
    for node, is_licensing in _sections(code, spaces):
        if is_licensing and isinstance(node, Template) and (name := _name(node, spaces)):
            return name
    own = {spaces.template_name(name) for name in spaces.words.licences}
    for name in names:
        if name in own:
            return name
    for pattern in (_FREE, _OTHER):
        for name in names:
            if pattern.match(name):
                return name
    return None


def _description(named: list[tuple[str, Template]], spaces: Namespaces) -> str:
    """The description field of a template such as {{Information}}, whose first field it is in every language."""
    for name, template in named:
        fields = [param for param in template.params if param.showkey]
        descriptions = [param for param in fields if spaces.words.is_description(str(param.name))]
        for param in descriptions or (fields[:1] if name == INFORMATION else []):
            if text := plain(param.value, spaces) or _in_a_language(param.value, spaces):
                return text
    return ""


def _in_a_language(value: Wikicode, spaces: Namespaces) -> str:
    """{{en|1=A kid.}} {{de|1=Ein Kind.}} -> what is said in the wiki's language, else the first."""
    texts: dict[str, str] = {}
    for template in value.ifilter_templates(recursive=False):
        language = str(template.name).strip().lower()
        if _LANGUAGE.fullmatch(language) and template.has("1"):
            texts.setdefault(language, plain(template.get("1").value, spaces))
    return texts.get(spaces.language) or next(filter(None, texts.values()), "")


def _summary(code: Wikicode, spaces: Namespaces) -> str:
    """The first paragraph that is not under the licence's heading."""
    return first_paragraph([node for node, is_licensing in _sections(code, spaces) if not is_licensing], spaces)


def _sections(code: Wikicode, spaces: Namespaces) -> Iterator[tuple[Node, bool]]:
    """Each node, and whether it stands in the licence's section or in one of its subsections."""
    licensing_level = 0
    for node in code.nodes:
        if isinstance(node, Heading):
            if spaces.words.is_licence_heading(str(node.title)):
                licensing_level = node.level
            elif node.level <= licensing_level:
                licensing_level = 0
        yield node, licensing_level > 0
