"""A host that breaks one in ten answers, in every way: the same catalogue in the end, and no picture lost for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_proxy import DRIP, WAYS, FaultyProxy, no_naps
from mediawiki.wiki import MediaWiki
from stages import scrape

from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import build_world
from sp_data.errors import WikiError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Source
from sp_data.wiki.catalogue import catalogue_rows, read_catalogue

from .conftest import source_of

MOST_RUNS = 40

HERE = {"allow_private_addresses": True}
"""The broken server is on this machine."""


def scraped(
    source: Source, lake: Lake, proxy: FaultyProxy, is_done: Callable[[Manifest], bool]
) -> tuple[Manifest, list[str]]:
    """Scrape until the catalogue is as it should be. Its manifest, and how each run ended."""
    ends: list[str] = []
    while len(ends) < MOST_RUNS:
        try:
            result = scrape(source, lake, proxy=proxy.url)
        except WikiError as error:
            ends.append(str(error))
            continue
        ends.append(f"{result.manifest.counts.out} of {result.manifest.counts.in_}: {result.manifest.counts.dropped}")
        if is_done(result.manifest):
            return result.manifest, ends
    raise AssertionError("\n".join(ends))


def list_of(lake: Lake, manifest: Manifest, path: Path) -> Path:
    """A list of the addresses of all originals in a catalogue."""
    rows = catalogue_rows(read_catalogue(lake, manifest))
    path.write_text("".join(f"{row.url}\n" for row in rows if row.original))
    return path


def survives(
    source: Source, tmp_path: Path, every: int, upstream: str | None = None, ways: tuple[str, ...] = WAYS
) -> FaultyProxy:
    """Scrape a source through a host that breaks its answers, and once undisturbed; both catalogues are equal."""
    with FaultyProxy(0, upstream=upstream) as sound:
        undisturbed = scrape(source, Lake(str(tmp_path / "sound"), "kids"), proxy=sound.url).manifest
    lake = Lake(str(tmp_path / "broken"), "kids")
    with FaultyProxy(every, ways, upstream) as proxy:
        manifest, ends = scraped(source, lake, proxy, lambda made: made.counts.out == undisturbed.counts.out)
    assert undisturbed.counts.out > 20, "there is something to lose"
    assert manifest.digest == undisturbed.digest
    assert set(proxy.broken) == set(ways) or proxy.num_asked < every * len(ways)
    # What came whole once is not asked for again.
    assert set(proxy.whole.values()) <= {1}, proxy.whole.most_common(3)
    sys.stdout.write(
        f"\n{source.place}: {undisturbed.counts.out} pictures, {sound.num_asked} requests undisturbed; "
        f"{proxy.num_asked} with {proxy.broken.total()} broken answers ({dict(proxy.broken)}), {len(ends)} runs:\n"
        + "".join(f"    {end}\n" for end in ends)
    )
    return proxy


@pytest.fixture
def wiki():
    with DemoWikiServer(build_world(24, 7)) as running:
        yield running


def test_a_wiki_and_a_list_through_broken_answers_come_out_as_undisturbed(wiki, tmp_path, monkeypatch):
    no_naps(monkeypatch)
    survives(source_of(wiki.origin), tmp_path / "wiki", 6, upstream=wiki.url)
    lake = Lake(str(tmp_path / "wiki" / "sound"), "kids")
    listed = list_of(lake, scrape(source_of(wiki.origin), lake, proxy=wiki.url).manifest, tmp_path / "kids.txt")
    politeness = {"contact": "me@example.org", "acknowledge_terms": True, "requests_per_second": 50} | HERE
    source = Source.model_validate({"addresses": str(listed), **politeness})
    survives(source, tmp_path / "list", 4, upstream=wiki.url)


@pytest.mark.proof
@pytest.mark.mediawiki
@pytest.mark.parametrize(
    ("every", "ways"),
    [
        pytest.param(10, WAYS, id="one in ten"),
        pytest.param(7, WAYS, id="one in seven"),
        pytest.param(10, (*WAYS[:4], DRIP, *WAYS[4:]), id="one in ten, with a drip"),
    ],
)
def test_the_sample_wiki_through_broken_answers_comes_out_as_undisturbed(mediawiki: MediaWiki, tmp_path, every, ways):
    survives(source_of(mediawiki.url, timeout_s=5), tmp_path / "wiki", every, ways=ways)
    lake = Lake(str(tmp_path / "wiki" / "sound"), "kids")
    listed = list_of(lake, scrape(source_of(mediawiki.url), lake).manifest, tmp_path / "kids.txt")
    politeness = {
        "contact": "me@example.org",
        "acknowledge_terms": True,
        "requests_per_second": 50,
        "timeout_s": 5,
    } | HERE
    source = Source.model_validate({"addresses": str(listed), **politeness})
    survives(source, tmp_path / "list", every, ways=ways)
