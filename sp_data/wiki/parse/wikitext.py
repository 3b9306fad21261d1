"""Wikitext -> what a page shows and says, with mwparserfromhell; nothing here makes a request.

{{Infobox kid|image=Ada Birch.png|coat=red}}
'''Ada Birch''' is a kid.<ref>Page 3</ref>
== At the lake ==
[[File:Ada Birch.png|thumb|Ada [[Swimming|swims]]|alt=a kid in water]]

Page(infoboxes=[fields {'coat': 'red'}, shows Ada Birch.png], lead='Ada Birch is a kid.',
     uses=[thumb, caption 'Ada swims', alt 'a kid in water', section 'At the lake'])
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mwparserfromhell.nodes import Heading, Node, Tag, Template, Wikilink
from mwparserfromhell.wikicode import Wikicode

from sp_data.wiki.parse.page import Infobox, Page, Use, UseKind, field_name
from sp_data.wiki.parse.plaintext import first_paragraph, first_sentence, parse, plain, split_options
from sp_data.wiki.parse.titles import Namespaces, looks_like_picture, normal_name

_PAGENAME = re.compile(r"\{\{\s*PAGENAME\s*\}\}")
_PICTURE_FIELD = re.compile(r"(?:image|picture|photo|img|pic) ?\d*")
_NOT_AN_INFOBOX = re.compile(r"quote|gallery|multiple image|navbox|notice|stub", re.IGNORECASE)
_FRAMED = re.compile(r"thumb|thumbnail|frame|framed", re.IGNORECASE)
_OPTION = re.compile(
    r"thumb|thumbnail|frame|framed|frameless|border|left|right|center|centre|none|baseline|middle|sub|super|top|"
    r"text-top|text-bottom|bottom|upright|\d*x?\d+\s?px|(?:thumb|upright|link|class|lang|page|start|end|thumbtime)=.*",
    re.IGNORECASE | re.DOTALL,
)


def read(text: str, title: str, page_id: int, revision: int, spaces: Namespaces) -> Page:
    """What the wikitext of a page shows and says."""
    code = parse(_PAGENAME.sub(lambda _: title, text))
    nodes = list(code.ifilter())
    boxes = _infobox_templates(code, nodes)
    inside = {id(node) for box in boxes for node in Wikicode([box]).ifilter()}
    categories = (spaces.category_name(str(node.title)) for node in nodes if isinstance(node, Wikilink))
    return Page(
        title=title,
        page_id=page_id,
        revision=revision,
        infoboxes=tuple(_infobox(box, spaces) for box in boxes),
        uses=tuple(_uses(nodes, inside, spaces)),
        lead=first_sentence(first_paragraph(_before_headings(code).nodes, spaces)),
        categories=tuple(dict.fromkeys(name for name in categories if name)),
    )


def _before_headings(code: Wikicode) -> Wikicode:
    headings = (index for index, node in enumerate(code.nodes) if isinstance(node, Heading))
    return Wikicode(code.nodes[: next(headings, None)])


def _infobox_templates(code: Wikicode, nodes: Iterable[Node]) -> list[Template]:
    """Templates called infobox; if there are none, those above the first heading with a picture in a field such as
    `image`."""
    named = [node for node in nodes if isinstance(node, Template) and "infobox" in str(node.name).lower()]
    if named:
        return named
    return [box for box in _before_headings(code).ifilter_templates(recursive=False) if _shows_a_picture(box)]


def _shows_a_picture(template: Template) -> bool:
    if _NOT_AN_INFOBOX.search(str(template.name)):
        return False
    fields = [field_name(str(param.name)) for param in template.params if param.showkey and str(param.value).strip()]
    return len(fields) > 1 and any(_PICTURE_FIELD.fullmatch(field) for field in fields)


def _infobox(template: Template, spaces: Namespaces) -> Infobox:
    values = {field_name(str(param.name)): param.value for param in template.params if param.showkey}
    fields: dict[str, str] = {}
    pictures: list[Use] = []
    for field, value in values.items():
        shown = list(_pictures(field, value, values, spaces))
        pictures += shown
        if not shown and (text := plain(value, spaces, line_break=", ").strip(", ")):
            fields[field] = text
    return Infobox(fields, tuple(pictures))


def _pictures(field: str, value: Wikicode, values: dict[str, Wikicode], spaces: Namespaces) -> Iterator[Use]:
    """The pictures that one field shows: `[[File:A.png|250px]]`, a gallery of them, or a bare `A.png`."""
    for use in _uses(value.ifilter(), set(), spaces):
        yield Use(use.name, "infobox", use.caption, use.alt)
    bare = plain(value, spaces)
    if looks_like_picture(bare):
        number = field[len(field.rstrip("0123456789")) :]

        def beside(*names: str) -> str:
            return next((plain(values[name + number], spaces) for name in names if name + number in values), "")

        caption = beside("caption", "image caption", "imagecaption")
        yield Use(spaces.file_name(bare) or normal_name(bare), "infobox", caption, beside("alt", "image alt"))


def _uses(nodes: Iterable[Node], excluded: set[int], spaces: Namespaces) -> Iterator[Use]:
    """Files in reading order, each with the heading above it; nodes in `excluded` (by id) are skipped."""
    section = ""
    for node in nodes:
        if id(node) in excluded:
            continue
        match node:
            case Heading():
                section = plain(node.title, spaces)
            case Wikilink():
                if name := spaces.file_name(str(node.title)):
                    yield _linked(name, str(node.text or ""), section, spaces)
            case Tag() if str(node.tag).strip().lower() == "gallery":
                yield from _gallery(str(node.contents or ""), section, spaces)
            case _:
                pass


def _linked(name: str, options: str, section: str, spaces: Namespaces) -> Use:
    """[[File:name|thumb|200px|alt=...|caption]]: the caption is the last part that is not an option."""
    kind: UseKind = "inline"
    caption = alt = ""
    for option in (part.strip() for part in split_options(options)):
        if option.lower().startswith("alt="):
            alt = plain(option[4:], spaces)
        elif _OPTION.fullmatch(option):
            kind = "thumb" if _FRAMED.fullmatch(option) else kind
        elif option:
            caption = plain(option, spaces)
    return Use(name, kind, caption, alt, section)


def _gallery(lines: str, section: str, spaces: Namespaces) -> Iterator[Use]:
    """One file a line: `Ada Birch.png|Ada at the [[lake]]|alt=a kid|link=Ada Birch`; `File:` may stand before it."""
    for line in lines.splitlines():
        target, *options = split_options(line)
        name = spaces.file_name(target) or normal_name(target)
        if not name or "//" in name:
            continue
        caption = alt = ""
        for option in (part.strip() for part in options):
            if option.lower().startswith("alt="):
                alt = plain(option[4:], spaces)
            elif not option.lower().startswith(("link=", "linktext=", "position=")):
                caption = plain(option, spaces)
        yield Use(name, "gallery", caption, alt, section)
