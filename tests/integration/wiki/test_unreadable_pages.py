"""Pages that anybody may write and no parser ends with: the run goes on, and what was known of them is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from stages import scrape

from sp_data.demo.wiki import history
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.runtime.bounded import BoundedWorker
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.parse import bounded

from .small_wiki import founded, png, source

# Seconds for the parser; with more of them, counting would tell.
NEVER_ENDS = "<b " * 2000


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> Iterator[None]:
    """Half a second for each page."""
    worker = BoundedWorker("sp_data.wiki.parse.worker", cpu_s=0.5)
    monkeypatch.setattr(bounded, "_worker", lambda: worker)
    yield
    worker.close()


@pytest.fixture
def wiki() -> Iterator[DemoWikiServer]:
    world = founded()
    world = history.edit(world, "Kid two", "[[File:A.png|thumb|A swims]]")
    world = history.edit(world, "File:A.png", "== Summary ==\nA, described.\n== Licensing ==\n{{Fairuse}}")
    with DemoWikiServer(world) as wiki:
        yield wiki


def rows_of(lake: Lake, manifest: Manifest) -> dict[str, CatalogueRow]:
    return {row.name: row for row in catalogue_rows(read_catalogue(lake, manifest))}


def said(row: CatalogueRow) -> tuple[str, str | None, list[str]]:
    return row.caption, row.licence, [caption.text for caption in row.captions if caption.source == "summary"]


@pytest.mark.parametrize("reconcile", [False, True])
def test_what_an_earlier_run_read_of_a_page_is_kept(wiki, lake, caplog, reconcile):
    before = rows_of(lake, scrape(source("all"), lake, proxy=wiki.url).manifest)["A.png"]
    assert said(before) == ("A swims", "Fairuse", ["A, described."])
    for title in ("Kid two", "File:A.png"):
        wiki.world = history.edit(wiki.world, title, NEVER_ENDS)
    wiki.world = history.upload(wiki.world, "New.png", png("b"), "== Summary ==\nA new one.")
    with caplog.at_level(logging.WARNING):
        manifest = scrape(source("all"), lake, proxy=wiki.url, reconcile=reconcile).manifest
    rows = rows_of(lake, manifest)
    assert said(rows["A.png"]) == said(before)
    assert rows["New.png"].caption == "A new one."
    assert manifest.details["num_pages_unread"] == 2
    assert "Kid two is not read: it takes more than 0.5 s to read" in caplog.text
    assert "File:A.png is not read: it takes more than 0.5 s to read" in caplog.text
    assert "2 pages could not be read" in caplog.text
    # The page can be read again.
    wiki.world = history.edit(wiki.world, "Kid two", "[[File:A.png|thumb|A runs]]")
    wiki.world = history.edit(wiki.world, "File:A.png", "A, changed.")
    manifest = scrape(source("all"), lake, proxy=wiki.url).manifest
    assert said(rows_of(lake, manifest)["A.png"]) == ("A runs", None, ["A, changed."])
    assert "num_pages_unread" not in manifest.details


def test_a_first_run_goes_on_without_the_page(wiki, lake):
    for title in ("Kid two", "File:A.png", "Template:Cast"):
        wiki.world = history.edit(wiki.world, title, NEVER_ENDS)
    manifest = scrape(source("all"), lake, proxy=wiki.url).manifest
    rows = rows_of(lake, manifest)
    assert manifest.counts.dropped == {}
    assert rows["A.png"].licence is None
    assert rows["Kid one.png"].subject == "Somebody"
    assert manifest.details["num_pages_unread"] >= 2
    assert scrape(source("all"), lake, proxy=wiki.url).state == "unchanged"


def test_a_portal_whose_html_cannot_be_read_still_selects_its_files(wiki, lake, monkeypatch, caplog):
    before = rows_of(lake, scrape(source("pages"), lake, proxy=wiki.url).manifest)
    monkeypatch.setattr(bounded, "LONGEST_HTML", 10)
    manifest = scrape(source("pages"), lake, proxy=wiki.url, reconcile=True).manifest
    rows = rows_of(lake, manifest)
    assert {name: row.caption for name, row in rows.items()} == {name: row.caption for name, row in before.items()}
    assert "the HTML of Portal:Characters is not read: it has" in caplog.text
