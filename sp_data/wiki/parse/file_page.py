"""The page of a file: its licence, its templates, and its description of the picture.

== Summary ==
Ada at the lake.                       FilePage(templates=('Fairuse',), licence='Fairuse',
== Licensing ==                                 summary='Ada at the lake.')
{{fairuse}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mwparserfromhell.nodes import Heading, Template
from mwparserfromhell.wikicode import Wikicode

from sp_data.wiki.parse.page import field_name
from sp_data.wiki.parse.plaintext import first_paragraph, parse, plain
from sp_data.wiki.parse.titles import Namespaces, normal_name

_LICENSING = re.compile(r"licen[cs](?:e|ing)|copyright", re.IGNORECASE)
_FREE = re.compile(r"(?:cc|pd|gfdl|gpl|lgpl|mit|fal)(?:\b|[- _\d])|public ?domain|attribution", re.IGNORECASE)
_OTHER = re.compile(
    r"fair ?use|non-?free|copyright|licen[cs]e|permission|screenshot|promo|trademark|self\b", re.IGNORECASE
)
_MAGIC_WORDS = frozenset({"PAGENAME", "FULLPAGENAME", "BASEPAGENAME", "SUBPAGENAME", "SITENAME", "NAMESPACE"})
_DESCRIPTIONS = frozenset({"description", "desc", "summary"})


@dataclass(frozen=True, slots=True)
class FilePage:
    """`templates`: their names. `licence`: one of them, or None."""

    templates: tuple[str, ...]
    licence: str | None
    summary: str


NO_PAGE = FilePage((), None, "")


def read(text: str, spaces: Namespaces) -> FilePage:
    """What the wikitext of a file's page says."""
    code = parse(text)
    named = [(name, template) for template in code.ifilter_templates() if (name := _template_name(template))]
    names = [name for name, _ in named]
    return FilePage(
        templates=tuple(sorted(set(names))),
        licence=_licence(code, names),
        summary=_description([template for _, template in named], spaces) or _summary(code, spaces),
    )


def _template_name(template: Template) -> str:
    """The template's name; '' for what only looks like a template: parser functions, magic words, arguments."""
    name = str(template.name).strip()
    name = name[len("template:") :] if name.lower().startswith("template:") else name
    is_template = name and name not in _MAGIC_WORDS and not set(name) & set("#:{}[]<>\n")
    return normal_name(name) if is_template else ""


def _licence(code: Wikicode, names: list[str]) -> str | None:
    """The template under a heading such as 'Licensing', else the first with the name of a licence."""
    for section in code.get_sections(matches=_LICENSING.pattern, include_headings=False):
        for template in section.ifilter_templates(recursive=False):
            if name := _template_name(template):
                return name
    for pattern in (_FREE, _OTHER):
        for name in names:
            if pattern.match(name):
                return name
    return None


def _description(templates: list[Template], spaces: Namespaces) -> str:
    """The description field of a template such as {{Information}}."""
    for template in templates:
        for param in template.params:
            if param.showkey and field_name(str(param.name)) in _DESCRIPTIONS and (text := plain(param.value, spaces)):
                return text
    return ""


def _summary(code: Wikicode, spaces: Namespaces) -> str:
    """The first paragraph that is not under the licence's heading."""
    nodes = []
    is_licensing = False
    for node in code.nodes:
        if isinstance(node, Heading):
            is_licensing = _LICENSING.search(str(node.title)) is not None
        if not is_licensing:
            nodes.append(node)
    return first_paragraph(nodes, spaces)
