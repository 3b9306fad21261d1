"""What api.php answers about the wiki itself: meta=siteinfo."""

from collections.abc import Callable
from datetime import UTC, datetime

from sp_data.demo.wiki.listings import Answer
from sp_data.demo.wiki.magic_words import EXTENSION_TAGS, VARIABLES, magic_words
from sp_data.demo.wiki.titles import CANONICAL, CONTENT_NAMESPACES, NAMESPACES, article_path
from sp_data.demo.wiki.world import World


def siteinfo(world: World, origin: str, wanted: list[str]) -> Answer:
    """The `wanted` parts of siteinfo, by name."""
    parts: dict[str, Callable[[World, str], object]] = {
        "general": _general,
        "namespaces": _namespaces,
        "namespacealiases": _aliases,
        "statistics": _statistics,
        "magicwords": lambda world, origin: magic_words(),
        "variables": lambda world, origin: list(VARIABLES),
        "extensiontags": lambda world, origin: [f"<{tag}>" for tag in EXTENSION_TAGS],
        "interwikimap": lambda world, origin: [],
    }
    return {name: part(world, origin) for name, part in parts.items() if name in wanted}


def _general(world: World, origin: str) -> Answer:
    return {
        "mainpage": "Main Page",
        "base": origin + article_path("Main Page"),
        "sitename": world.name,
        "generator": "MediaWiki 1.39.17",
        "case": "first-letter",
        "lang": "en",
        "readonly": False,
        "timezone": "UTC",
        "timeoffset": 0,
        "articlepath": "/wiki/$1",
        "scriptpath": "",
        "script": "/index.php",
        "server": origin,
        "servername": origin.partition("://")[2].partition(":")[0],
        "wikiid": "paperkids",
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "misermode": False,
        "uploadsenabled": True,
    }


def _namespaces(world: World, origin: str) -> Answer:
    return {str(number): _namespace(number) for number in NAMESPACES}


def _namespace(number: int) -> Answer:
    name = NAMESPACES[number]
    fields: Answer = {"id": number, "case": "first-letter", "name": name}
    fields["subpages"] = number > 0 and number not in (6, 14, 100, 101)
    if number != 0:
        fields["canonical"] = CANONICAL.get(number, name)
    fields |= {"content": number in CONTENT_NAMESPACES, "nonincludable": False}
    if number == 8:
        fields["namespaceprotection"] = "editinterface"
    return fields


def _aliases(world: World, origin: str) -> list[Answer]:
    return [{"id": 6, "alias": "Image"}, {"id": 7, "alias": "Image talk"}]


def _statistics(world: World, origin: str) -> Answer:
    pages = world.pages.values()
    return {
        "pages": len(pages),
        "articles": sum(page.namespace in CONTENT_NAMESPACES and page.redirect is None for page in pages),
        "edits": len(pages),
        "images": len(world.files),
        "users": len({file.uploader for file in world.files.values()}),
        "activeusers": 0,
        "admins": 1,
        "jobs": 0,
    }
