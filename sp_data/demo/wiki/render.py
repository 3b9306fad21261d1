"""The made-up wiki's pages as HTML, in the shapes that Fandom's pages have.

Infoboxes are `aside.portable-infobox`, galleries `.wikia-gallery-item` with `.lightbox-caption`. From the fifth on, a
gallery's pictures are lazy: a blank GIF as `src`, the address in `data-src`, and a plain copy in `noscript`. It
understands only the wikitext that wikitext.py writes.
"""

import re
from html import escape
from itertools import count

from sp_data.demo.wiki.pages import WikiPage, expanded, included_of
from sp_data.demo.wiki.titles import InvalidTitle, article_path, image_url, key, normalised
from sp_data.demo.wiki.world import File, World

BLANK = "data:image/gif;base64,R0lGODlhAQABAIABAAAAAP///yH5BAEAAAEALAAAAAABAAEAQAICTAEAOw%3D%3D"
GALLERY_CLASSES = (
    "wikia-gallery wikia-gallery-caption-below wikia-gallery-position-left wikia-gallery-spacing-medium "
    "wikia-gallery-border-small wikia-gallery-captions-left wikia-gallery-caption-size-medium"
)
NUM_EAGER = 4
GALLERY_PX, INFOBOX_PX = 185, 270

INFOBOX = re.compile(r"\{\{Infobox kid\n(.*?)\n\}\}", re.DOTALL)
FIELD = re.compile(r"^\|([^=]+?) *= *(.*?) *$", re.MULTILINE)
GALLERY = re.compile(r"<gallery[^>]*>\n(.*?)\n</gallery>", re.DOTALL)
CATEGORY = re.compile(r"\[\[Category:[^\]]*\]\]\n?")
HEADING = re.compile(r"^== *(.+?) *==$")
IMAGE_LINK = re.compile(r"\[\[File:([^|\]]+)((?:\|(?:[^\[\]]|\[\[[^\]]*\]\])*)?)\]\]")
LINK = re.compile(r"\[\[([^|\]]+)(?:\|([^\]]*))?\]\]")
LABELS = {"coat": "Coat", "hat": "Hat", "hat kind": "Hat kind", "hair": "Hair", "skin": "Skin"}


def html(world: World, page: WikiPage, origin: str) -> str:
    """The body of `page`, as action=parse gives it; pictures are linked below `origin`, articles below `/wiki/`."""
    if page.redirect is not None:
        link = _link(world, page.redirect, page.redirect)
        body = f'<div class="redirectMsg"><p>Redirect to:</p><ul class="redirectText"><li>{link}</li></ul></div>'
    else:
        body = _Renderer(world, origin).body(page.wikitext)
    return f'<div class="mw-parser-output">{body}\n</div>'


class _Renderer:
    """Renders one page: blocks first, then the markup inside lines."""

    def __init__(self, world: World, origin: str) -> None:
        self.world, self.origin = world, origin
        self.galleries = count()
        self.blocks: list[str] = []

    def body(self, text: str) -> str:
        text = expanded(text, included_of(self.world.pages.values()))
        text = CATEGORY.sub("", text).replace("__NOTOC__", "")
        # A marker stands for each finished block, so that the rules for lines do not change its HTML.
        text = INFOBOX.sub(lambda match: self.marker_for(self.infobox(match[1])), text)
        text = GALLERY.sub(lambda match: self.marker_for(self.gallery(match[1])), text)
        text = IMAGE_LINK.sub(lambda match: self.marker_for(self.thumb(match[1], match[2])), text)
        lines = [self.line(line) for line in text.splitlines() if line.strip()]
        return re.sub(r"\x02(\d+)\x03", lambda match: self.blocks[int(match[1])], "\n".join(lines))

    def marker_for(self, block: str) -> str:
        self.blocks.append(block)
        return f"\n\x02{len(self.blocks) - 1}\x03\n"

    def line(self, line: str) -> str:
        if line.startswith("\x02"):
            return line
        if heading := HEADING.match(line):
            anchor = escape(heading[1].replace(" ", "_"))
            return f'<h2><span class="mw-headline" id="{anchor}">{escape(heading[1])}</span></h2>'
        if line.startswith("* "):
            return f"<ul><li>{self.inline(line[2:])}</li></ul>"
        return f"<p>{self.inline(line)}\n</p>"

    def inline(self, text: str) -> str:
        text = escape(text, quote=False)
        text = LINK.sub(lambda match: _link(self.world, match[1], match[2] or match[1]), text)
        text = re.sub(r"'''(.+?)'''", r"<b>\1</b>", text)
        return re.sub(r"''(.+?)''", r"<i>\1</i>", text)

    def infobox(self, text: str) -> str:
        fields = dict(FIELD.findall(text))
        title = '<h2 class="pi-item pi-item-spacing pi-title pi-secondary-background" data-source="name">'
        parts = [f"{title}{self.inline(fields['name'])}</h2>"]
        if (file := self.world.file(fields["image"])) is not None:
            caption = fields.get("caption", "")
            below = (
                f'<figcaption class="pi-item-spacing pi-caption">{self.inline(caption)}</figcaption>' if caption else ""
            )
            parts.append(
                f'<figure class="pi-item pi-image" data-source="image"><a href="{escape(self.url(file))}"'
                f' class="image image-thumbnail" title="">'
                f"{self.image(file, INFOBOX_PX, key(f'File:{file.name}'), 'pi-image-thumbnail')}</a>{below}</figure>"
            )
        for header, labels in (("Looks", LABELS), ("Whereabouts", {"place": "Place"})):
            rows = "".join(self.row(name, label, fields[name]) for name, label in labels.items() if fields.get(name))
            classes = "pi-item pi-header pi-secondary-font pi-item-spacing pi-secondary-background"
            parts.append(
                f'<section class="pi-item pi-group pi-border-color"><h2 class="{classes}">{header}</h2>{rows}</section>'
            )
        classes = "portable-infobox pi-background pi-border-color pi-theme-wikia pi-layout-default"
        return f'<aside role="region" class="{classes}">{"".join(parts)}</aside>'

    def row(self, name: str, label: str, value: str) -> str:
        return (
            f'<div class="pi-item pi-data pi-item-spacing pi-border-color" data-source="{name}">'
            f'<h3 class="pi-data-label pi-secondary-font">{label}</h3>'
            f'<div class="pi-data-value pi-font">{self.inline(value)}</div></div>'
        )

    def gallery(self, text: str) -> str:
        items = "".join(self.gallery_item(line, number >= NUM_EAGER) for number, line in enumerate(text.splitlines()))
        return f'<div id="gallery-{next(self.galleries)}" class="{GALLERY_CLASSES}">{items}</div>'

    def gallery_item(self, line: str, lazy: bool) -> str:
        name, _, rest = line.partition("|")
        caption, separator, link = rest.rpartition("|link=")
        caption_html = self.inline(caption if separator else rest)
        below = (
            f'<div class="lightbox-caption" style="width:{GALLERY_PX}px;">{caption_html}</div>' if caption_html else ""
        )
        file = self.world.file(name)
        if file is None:
            broken = (
                f'<a href="{article_path("File:" + name)}" class="image broken-image new" title="File:{escape(name)}">'
            )
            return (
                f'<div class="wikia-gallery-item" style="width:{GALLERY_PX}px;"><div class="thumb">'
                f'<div class="gallery-image-wrapper accent">{broken}File:{escape(name)}</a></div></div>{below}</div>'
            )
        box, anchor = f"width:{GALLERY_PX}px; height:{GALLERY_PX}px;", escape(key(f"File:{name}").replace(".", "-"))
        target = (
            f'<a class="image link-internal" href="{escape(article_path(link))}" title="{escape(key(link))}">'
            if separator
            else f'<a class="image lightbox" href="{escape(self.url(file))}">'
        )
        alt = re.sub(r"<[^>]+>", "", caption_html)
        picture = self.image(file, GALLERY_PX, alt or key(f"File:{name}"), "thumbimage")
        if lazy:
            picture = f"{_lazy(picture)}<noscript>{picture}</noscript>"
        return (
            f'<div class="wikia-gallery-item" id="{anchor}" style="width:{GALLERY_PX}px;">'
            f'<div class="thumb" style="{box}"><div class="gallery-image-wrapper accent" id="{anchor}-wrapper" '
            f'style="position: relative; {box}">{target}{picture}</a></div></div>{below}</div>'
        )

    def thumb(self, name: str, options: str) -> str:
        file = self.world.file(name)
        if file is None:
            return f'<a href="{article_path("File:" + name)}" class="new">File:{escape(name)}</a>'
        if not file.mime.startswith("image/"):
            return f'<a href="{escape(self.url(file))}" class="internal">{escape(name)}</a>'
        settings = [option for option in options.split("|")[1:] if option not in ("thumb", "right")]
        width_px = next((int(option[:-2]) for option in settings if re.fullmatch(r"\d+px", option)), 220)
        alt = next((option[4:] for option in settings if option.startswith("alt=")), name)
        caption = next((option for option in settings if not re.fullmatch(r"\d+px|alt=.*", option)), "")
        image = _lazy(self.image(file, width_px, alt, "thumbimage"))
        picture = f'<a href="{escape(self.url(file))}" class="image">{image}</a>'
        if "|thumb" not in options:
            return picture
        return (
            f'<div class="thumb tright"><div class="thumbinner" style="width:{width_px + 2}px;">{picture}'
            f'<div class="thumbcaption"><div class="magnify"><a href="{article_path("File:" + name)}" class="internal" '
            f'title="Enlarge"></a></div>{self.inline(caption)}</div></div></div>'
        )

    def image(self, file: File, width_px: int, alt: str, classes: str) -> str:
        """Small pictures are shown enlarged, as on real wikis, but are never requested wider than they are."""
        height_px = round(file.height * width_px / file.width) if file.width else width_px
        source = self.url(file, width_px if width_px < file.width else None)
        image_key = image_url(file.name, "", "").split("/")[4]
        return (
            f'<img src="{escape(source)}" alt="{escape(alt)}" width="{width_px}" height="{height_px}" '
            f'data-image-name="{escape(file.name)}" data-image-key="{escape(image_key)}" class="{classes}"/>'
        )

    def url(self, file: File, width_px: int | None = None) -> str:
        return image_url(file.name, file.timestamp, self.origin, width_px)


def _lazy(image: str) -> str:
    """The same image, for a script to load when it comes into view."""
    image = re.sub(r' class="([^"]*)"/>', r' class="\1 lazyload"/>', image)
    return re.sub(r'<img src="([^"]*)"(.*)/>', rf'<img src="{BLANK}"\2 data-src="\1"/>', image)


def eager(body: str) -> str:
    """Makes a page's lazy pictures plain ones, for browsers without that script."""
    body = re.sub(r"<noscript>.*?</noscript>", "", body)
    return re.sub(r'<img src="data:[^"]*"([^>]*?) data-src="([^"]*)"/>', r'<img src="\2"\1/>', body)


def _link(world: World, target: str, text: str) -> str:
    try:
        title = normalised(target)
    except InvalidTitle:
        return text
    missing = "" if title in world.pages else ' class="new"'
    return f'<a href="{article_path(title)}"{missing} title="{escape(title)}">{text}</a>'
