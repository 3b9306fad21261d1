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
from sp_data.wiki.parse.titles import Namespaces, looks_like_picture
from sp_data.wiki.parse.variants import resolve

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PICTURE_FIELD = re.compile(r"(?:image|picture|photo|img|pic) ?\d*")
_NOT_AN_INFOBOX = re.compile(r"quote|gallery|multiple image|navbox|notice|stub", re.IGNORECASE)


def read(text: str, title: str, page_id: int, revision: int, spaces: Namespaces) -> Page:
    """What the wikitext of a page shows and says."""
    text = resolve(text, spaces.language, spaces.variants)
    code = parse(spaces.words.page_name_pattern.sub(lambda _: title, text))
    nodes = list(code.ifilter())
    boxes = _infobox_templates(code, nodes, spaces)
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


def _infobox_templates(code: Wikicode, nodes: Iterable[Node], spaces: Namespaces) -> list[Template]:
    """Templates called infobox; if there are none, those above the first heading that show a picture in a field."""
    named = [node for node in nodes if isinstance(node, Template) and "infobox" in str(node.name).lower()]
    if named:
        return named
    return [box for box in _before_headings(code).ifilter_templates(recursive=False) if _shows_a_picture(box, spaces)]


def _shows_a_picture(template: Template, spaces: Namespaces) -> bool:
    """Whether a field names a picture, such as `image = Ada.png`: the field's own name is in the wiki's language."""
    if _NOT_AN_INFOBOX.search(str(template.name)):
        return False
    filled = [
        (field_name(str(param.name)), value)
        for param in template.params
        if param.showkey and (value := _bare(param.value))
    ]
    return len(filled) > 1 and any(
        _PICTURE_FIELD.fullmatch(field) or looks_like_picture(value) or spaces.file_name(value.partition("|")[0])
        for field, value in filled
    )


def _bare(value: Wikicode) -> str:
    """'[[File:A.png|250px]] ' -> 'File:A.png|250px'."""
    return str(value).strip().removeprefix("[[").removesuffix("]]")


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
        yield Use(spaces.file_name(bare) or spaces.normal(bare), "infobox", caption, beside("alt", "image alt"))


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
    for text in _parts(options):
        match spaces.words.option(text):
            case ("alt", value):
                alt = plain(value, spaces)
            case ("frame", _):
                kind = "thumb"
            case None:
                caption = plain(text, spaces)
            case _:
                pass
    return Use(name, kind, caption, alt, section)


def _gallery(lines: str, section: str, spaces: Namespaces) -> Iterator[Use]:
    """One file a line: `Ada Birch.png|Ada at the [[lake]]|alt=a kid|link=Ada Birch`; `File:` may stand before it.

    A gallery knows no words such as `left`: they are captions, unless there is another one.
    """
    for line in lines.splitlines():
        target, *options = split_options(line)
        name = spaces.file_name(target) or spaces.normal(target.partition("#")[0])
        if not name or "//" in name:
            continue
        caption = alt = word = ""
        for text in _parts("|".join(options)):
            match spaces.words.option(text):
                case ("alt", value):
                    alt = plain(value, spaces)
                case ("word", _):
                    word = text
                case None:
                    caption = plain(text, spaces)
                case _:
                    pass
        yield Use(name, "gallery", caption or word, alt, section)


def _parts(options: str) -> Iterator[str]:
    if "-->" in options:
        options = _COMMENT.sub("", options)
    return (part for text in split_options(options) if (part := text.strip()))
