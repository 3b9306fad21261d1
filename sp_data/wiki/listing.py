"""Which files there are: by the pages that show them, by category, or all; with what the wiki knows of each.

    Listing(files=[WikiFile(name='Ada Birch.png', bytes=1143, sha1='5f0c…', ...)],
            aliases={'Old name.png': 'New name.png'})

A file redirect is not a file: it becomes an alias, so that pages that use the old name still lend their captions.
500 files a request; categories and redirects come with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sp_data.errors import WikiError
from sp_data.recipe import Source
from sp_data.wiki.client import Json, Params, WikiClient
from sp_data.wiki.titles import file_title, normal_name

log = logging.getLogger(__name__)

TITLES_A_REQUEST = 50
LONG_TITLES_A_REQUEST = 10
"""File titles run to 255 bytes, three characters each when they stand in an address."""
_WANTED: Params = {
    "prop": "imageinfo|categories|redirects",
    "iiprop": "timestamp|user|url|size|sha1|mime|canonicaltitle",
    "cllimit": "max",
    "rdprop": "title",
    "rdlimit": "max",
}


@dataclass(frozen=True, slots=True)
class WikiFile:
    """A file as the wiki lists it. `sha1` and `url` are empty where the wiki hides its content."""

    name: str
    page_id: int | None
    url: str
    sha1: str
    bytes: int
    mime: str
    width: int
    height: int
    uploaded_at: str
    uploader: str | None
    categories: tuple[str, ...]

    @property
    def title(self) -> str:
        return file_title(self.name)


@dataclass(frozen=True, slots=True)
class Listing:
    """`files` by title; `aliases`: other name -> name of a listed file."""

    files: tuple[WikiFile, ...]
    aliases: Mapping[str, str]


def list_files(client: WikiClient) -> Listing:
    """The files that the client's source selects, each once. Raises WikiError if there are none."""
    source = client.source
    files: dict[str, WikiFile] = {}
    aliases: dict[str, str] = {}
    for params in _questions(source):
        _collect(client, params, files, aliases)
    # A page that shows a file by its old name only: ask for the file itself.
    elsewhere = sorted(set(aliases.values()) - files.keys())
    for start in range(0, len(elsewhere), LONG_TITLES_A_REQUEST):
        titles = "|".join(file_title(name) for name in elsewhere[start : start + LONG_TITLES_A_REQUEST])
        _collect(client, {"titles": titles}, files, aliases)
    if not files:
        raise WikiError(f"{source.wiki} has no files to scrape ({_what(source)}): see source.select in the recipe")
    log.info("listed %d files of %s (%s)", len(files), source.wiki, _what(source))
    ordered = tuple(files[name] for name in sorted(files, key=file_title))
    return Listing(ordered, {alias: name for alias, name in sorted(aliases.items()) if alias not in files})


def _collect(client: WikiClient, params: Params, files: dict[str, WikiFile], aliases: dict[str, str]) -> None:
    for page in client.pages({**params, **_WANTED}):
        # A red link, or a description page whose file is gone.
        if not page.get("imageinfo"):
            continue
        info, shown_as = page["imageinfo"][0], _name(page["title"])
        name = _name(info.get("canonicaltitle") or page["title"])
        if name != shown_as:
            # A redirect answers with its own title and categories, and with the other file's imageinfo.
            aliases[shown_as] = name
            continue
        files.setdefault(name, _file(name, page, info))
        for redirect in page.get("redirects", ()):
            aliases[_name(redirect["title"])] = name


def _questions(source: Source) -> Iterator[Params]:
    match source.select:
        case "pages":
            for start in range(0, len(source.pages), TITLES_A_REQUEST):
                titles = "|".join(source.pages[start : start + TITLES_A_REQUEST])
                yield {"generator": "images", "gimlimit": "max", "titles": titles, "redirects": 1}
        case "categories":
            for category in source.categories:
                title = category if ":" in category else f"Category:{category}"
                yield {"generator": "categorymembers", "gcmtitle": title, "gcmtype": "file", "gcmlimit": "max"}
        case "all":
            yield {"generator": "allimages", "gailimit": "max"}


def _what(source: Source) -> str:
    match source.select:
        case "pages":
            return "shown on " + ", ".join(source.pages)
        case "categories":
            return "in " + ", ".join(source.categories)
        case "all":
            return "every file"


def _name(title: str) -> str:
    return normal_name(title.partition(":")[2])


def _file(name: str, page: Json, info: Json) -> WikiFile:
    return WikiFile(
        name=name,
        page_id=page.get("pageid"),
        url=info.get("url", ""),
        sha1=info.get("sha1", ""),
        bytes=int(info.get("size", 0)),
        mime=info.get("mime", ""),
        width=int(info.get("width", 0)),
        height=int(info.get("height", 0)),
        uploaded_at=info.get("timestamp", ""),
        uploader=info.get("user"),
        categories=tuple(sorted(_name(category["title"]) for category in page.get("categories", ()))),
    )
