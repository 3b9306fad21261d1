"""A wiki of five pictures and four pages that changes in milliseconds: the demo's server, over HTTP."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta

from PIL import Image

from sp_data.demo.wiki import history
from sp_data.demo.wiki.world import TIMESTAMP, World
from sp_data.recipe import Source

FILES = ("A.png", "B.png", "C.png", "Kid one.png")
PAGES = ("Kid one", "Kid two", "Sub/Gallery")
SOURCES = {
    "all": {"select": "all"},
    "pages": {"select": "pages", "pages": ["Portal:Characters"]},
    "categories": {"select": "categories", "categories": ["Wanted"]},
}
GALLERY = "<gallery>\n{}|here\n</gallery>"
TEMPLATE_TEXTS = (
    "<includeonly>[[Category:Wanted]]</includeonly>",
    "<includeonly>[[Category:Other]]</includeonly>",
    "<includeonly>" + GALLERY.format("B.png") + "</includeonly>",
    "<includeonly>" + GALLERY.format("Kid one.png") + "</includeonly>",
    "nothing",
)
PAGE_TEXTS = (
    "A page.",
    "[[File:A.png|thumb|A on a page]]",
    GALLERY.format("B.png") + "\n" + GALLERY.format("A.png"),
    "{{Cast}}\nMore.",
    "{{Infobox kid\n|name = Somebody\n|image = Kid one.png\n|coat = red\n}}\n'''Somebody''' is a kid.",
    "#REDIRECT [[Kid two]]",
)
FILE_TEXTS = ("A file.", "[[Category:Wanted]]", "{{Mark}}", "{{Cast}} {{Mark}}")
PORTAL = ("Portal:Characters", GALLERY.format("Logo.png") + "\n{{Cast}}\n" + GALLERY.format("Kid one.png"))


def png(colour: str) -> bytes:
    """A PNG in the colour 'r', 'g' or 'b'."""
    out = io.BytesIO()
    Image.new("RGB", (3, 2), {"r": "red", "g": "lime", "b": "blue"}[colour]).save(out, "PNG")
    return out.getvalue()


def founded() -> World:
    world = World("Small wiki", {}, {}, (), "2020-01-01T00:00:00Z")
    world = history.edit(world, "Template:Mark", TEMPLATE_TEXTS[0])
    world = history.edit(world, "Template:Cast", TEMPLATE_TEXTS[2])
    for name, colour, text in zip(FILES, "rgbr", FILE_TEXTS, strict=True):
        world = history.upload(world, name, png(colour), text)
    for title, text in zip(PAGES, (PAGE_TEXTS[4], PAGE_TEXTS[3], PAGE_TEXTS[1]), strict=True):
        world = history.edit(world, title, text)
    # One picture that the portal always shows, so that there is something to scrape.
    return history.edit(history.upload(world, "Logo.png", png("g"), "[[Category:Wanted]]"), *PORTAL)


def source(select: str, **fields: object) -> Source:
    wiki = {"wiki": "http://paper-kids.localhost", "requests_per_second": 0}
    return Source.model_validate({**wiki, **SOURCES[select], **fields})


def later(world: World, **span: float) -> World:
    """The same wiki, `timedelta(**span)` later."""
    clock = datetime.strptime(world.clock, TIMESTAMP) + timedelta(**span)
    return replace(world, clock=clock.strftime(TIMESTAMP))
