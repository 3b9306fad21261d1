"""Fixtures of the scraper's tests, besides those of tests/mediawiki/fixture.py (a real MediaWiki, or skipped).

subject    a wiki and the facts that its API must tell: a test runs on the demo's wiki and on the real MediaWiki
lake       an empty lake
world      (session) the demo's wiki that `subject` serves
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mediawiki.wiki import MediaWiki

from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World, build_world
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.http.client import WikiClient

NUM_KIDS = 60


@dataclass(frozen=True, slots=True)
class Subject:
    """A wiki, and the facts that its API must tell."""

    address: str
    proxy: str | None
    originals: dict[str, Path | bytes]
    """Name of every current file -> its bytes."""
    category: str
    in_category: frozenset[str]
    article: str
    """A page with an infobox that shows the picture `portrait`."""
    portrait: str
    not_on_portal: str

    def source(self, **fields: Any) -> Source:
        return source_of(self.address, **fields)

    @contextmanager
    def client(self, **fields: Any) -> Iterator[WikiClient]:
        with WikiClient(self.source(**fields), self.proxy) as client:
            yield client

    def original(self, name: str) -> bytes:
        original = self.originals[name]
        return original if isinstance(original, bytes) else original.read_bytes()


def source_of(address: str, **fields: Any) -> Source:
    """A source of every file of a wiki on this machine, at full speed."""
    return Source.model_validate({"wiki": address, "select": "all", "requests_per_second": 0, **fields})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


@pytest.fixture(scope="session")
def world() -> World:
    return build_world(NUM_KIDS, 7)


@pytest.fixture(params=["demo", pytest.param("mediawiki", marks=pytest.mark.mediawiki)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "demo":
        world: World = request.getfixturevalue("world")
        with DemoWikiServer(world) as wiki:
            yield _demo(wiki, world)
    else:
        yield _sample(request.getfixturevalue("mediawiki"))


def _demo(wiki: DemoWikiServer, world: World) -> Subject:
    kid = world.kids[0].name
    category = "Category:Pictures of kids"
    return Subject(
        address=wiki.origin,
        proxy=wiki.url,
        originals={name: file.data for name, file in world.files.items()},
        category=category,
        in_category=frozenset(name for name in world.files if category in world.pages[f"File:{name}"].categories),
        article=kid,
        portrait=f"{kid}.png",
        not_on_portal="Pixel.png",
    )


def _sample(wiki: MediaWiki) -> Subject:
    folder = wiki.root / "sample"
    originals = {path.name: path for path in folder.iterdir()}
    # What sample.py does to them: one is revised, one deleted, one uploaded again under a name that was then changed.
    originals["Revised.png"] = originals.pop("Revised-v2.png")
    del originals["Doomed.png"]
    originals["New name.png"] = folder / "Kid-001.png"
    kids = {name for name in originals if name.startswith("Kid-") and name != "Kid-000-copy.png"}
    return Subject(
        address=wiki.url,
        proxy=None,
        originals=originals,
        category="Category:Images",
        in_category=frozenset(
            {name for name in kids if int(name[4:7]) % 3 != 1} | {"Señor-Dóminguez.png", "Revised.png"}
        ),
        article="Kid 003",
        portrait="Kid-003.png",
        not_on_portal="Pixel.png",
    )
