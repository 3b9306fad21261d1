"""A page's HTML (action=parse) -> what it shows and says, with BeautifulSoup.

For pages whose wikitext does not name their pictures: galleries and infoboxes that templates or Lua make, such as a
portal's. Understands MediaWiki's own thumbs and galleries and Fandom's (portable infoboxes, wikia-gallery). Fandom
loads pictures lazily: `src` is then a blank GIF, the real picture occurs twice (img and noscript), and data-image-key
names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from sp_data.wiki.parse.page import Infobox, Page, Use, UseKind, field_name
from sp_data.wiki.parse.plaintext import first_sentence
from sp_data.wiki.parse.titles import normal_name

INVISIBLE = "noscript, style, script, sup.reference, .mw-editsection, .magnify, .toc"
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
INFOBOX = "aside.portable-infobox"
_FRAMES: tuple[tuple[str, UseKind, str], ...] = (
    (".wikia-gallery-item", "gallery", ".lightbox-caption"),
    ("li.gallerybox", "gallery", ".gallerytext"),
    (".thumbinner", "thumb", ".thumbcaption"),
    ("figure", "thumb", "figcaption"),
)
"""Selector of the element around a picture, the kind of use, and the selector of the caption in that element."""
# .../images/h/hh/Name.png/revision/latest, .../images/thumb/h/hh/Name.png/120px-Name.png
_HASHED = re.compile(r"/[0-9a-f]/[0-9a-f]{2}/([^/]+)")


def read(html: str, title: str, page_id: int, revision: int) -> Page:
    """What the HTML of a page shows and says. It has no categories."""
    soup = BeautifulSoup(html, "lxml")
    for element in soup.select(INVISIBLE):
        element.decompose()
    return Page(
        title=title,
        page_id=page_id,
        revision=revision,
        infoboxes=tuple(_infobox(aside) for aside in soup.select(INFOBOX)),
        uses=tuple(_uses(soup)),
        lead=_lead(soup),
        categories=(),
    )


def _infobox(aside: Tag) -> Infobox:
    fields: dict[str, str] = {}
    for title in aside.select(".pi-title"):
        fields.setdefault("name", _text(title))
    for data in aside.select(".pi-data[data-source]"):
        if (value := data.select_one(".pi-data-value")) and (text := _text(value)):
            fields.setdefault(field_name(str(data["data-source"])), text)
    pictures = []
    for image in aside.select("img"):
        if name := _name(image):
            figure = image.find_parent("figure")
            caption = figure.select_one(".pi-caption") if figure else None
            pictures.append(Use(name, "infobox", _text(caption), _alt(image, name)))
    return Infobox({field: text for field, text in fields.items() if text}, tuple(dict.fromkeys(pictures)))


def _uses(soup: BeautifulSoup) -> Iterator[Use]:
    section = ""
    for element in soup.find_all([*HEADINGS, "img"]):
        if not isinstance(element, Tag) or element.find_parent("aside"):
            continue
        if element.name in HEADINGS:
            section = _text(element)
        elif name := _name(element):
            kind, caption = _frame(element)
            yield Use(name, kind, caption, _alt(element, name), section)


def _frame(image: Tag) -> tuple[UseKind, str]:
    for around in image.parents:
        for selector, kind, caption in _FRAMES:
            if around.css.match(selector):
                return kind, _text(around.select_one(caption))
    return "inline", ""


def _name(image: Tag) -> str | None:
    """The file that an <img> shows, None if it is not a file of the wiki."""
    if key := image.get("data-image-key"):
        return _from_address(str(key))
    try:
        address = urlsplit(str(image.get("data-src") or image.get("src") or ""))
    except ValueError:
        # No address at all, such as '//[x'.
        return None
    hashed = _HASHED.search(address.path)
    return _from_address(hashed[1]) if hashed else None


def _from_address(text: str) -> str:
    """'Ada_Birch%27s.png' -> "Ada Birch's.png"; an address has the name's own capitals, and no entities."""
    return unquote(text).replace("_", " ").strip()


def _alt(image: Tag, name: str) -> str:
    """The alt text; '' if it only repeats the file's name."""
    alt = " ".join(str(image.get("alt") or "").split())
    return "" if normal_name(alt) in (name, name.rpartition(".")[0]) else alt


def _lead(soup: BeautifulSoup) -> str:
    for element in soup.find_all(["p", "h2"]):
        if isinstance(element, Tag) and not element.find_parent(["aside", "table", "figure"]):
            if element.name == "h2":
                return ""
            text = _text(element)
            if any(char.isalpha() for char in text):
                return first_sentence(text)
    return ""


def _text(element: Tag | None) -> str:
    return " ".join(element.get_text().split()) if element else ""
