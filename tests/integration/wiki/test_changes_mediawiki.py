"""One long list of changes on a real MediaWiki: a scrape of the changes ends with the result of a fresh scrape."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from mediawiki.changes import imports, visible_changes
from mediawiki.sample import sample_ops
from mediawiki.wiki import MediaWiki
from stages import scrape

from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.originals import originals_missing
from sp_data.wiki.tombstones import read_tombstones

from .conftest import source_of

pytestmark = pytest.mark.mediawiki

NUM_KIDS = 24
SOURCES = {
    "all": {"select": "all"},
    "pages": {"select": "pages"},
    "categories": {"select": "categories", "categories": ["Fair use", "Category:Images"]},
}


def rows_of(lake: Lake, manifest: Manifest) -> dict[str, CatalogueRow]:
    return {row.title: row for row in catalogue_rows(read_catalogue(lake, manifest))}


def requests(wiki: MediaWiki) -> Counter[str]:
    counts = Counter(access.kind for access in wiki.log())
    wiki.clear_log()
    return counts


def test_a_scrape_of_what_changed_ends_as_a_fresh_one(fresh_mediawiki, tmp_path):
    wiki = fresh_mediawiki
    wiki.apply(sample_ops(tmp_path / "sample", NUM_KIDS))
    lakes = {name: Lake(str(tmp_path / "kept"), name) for name in SOURCES}
    sources = {name: source_of(wiki.url, **fields) for name, fields in SOURCES.items()}
    first = {name: scrape(source, lakes[name]).manifest for name, source in sources.items()}

    changes = visible_changes(tmp_path / "changes")
    wiki.apply(changes)
    wiki.clear_log()
    for name, source in sources.items():
        before = set(lakes[name].list("originals"))
        changed = scrape(source, lakes[name]).manifest
        num_requests = requests(wiki)
        fresh_lake = Lake(str(tmp_path / "fresh"), name)
        fresh = scrape(source, fresh_lake).manifest
        wiki.clear_log()
        assert rows_of(lakes[name], changed) == rows_of(fresh_lake, fresh)
        # Not only the rows: the bytes of the whole catalogue are equal, whatever was scraped before.
        assert (changed.identity, changed.digest) == (fresh.identity, fresh.digest)
        assert changed.previous == first[name].identity
        # Each new picture is fetched once, and no other: moved, restored and reverted ones are in the lake already.
        assert num_requests["image"] == len(set(lakes[name].list("originals")) - before)
        if name == "all":
            # A newcomer, another drawing, and one that was deleted before the first scrape.
            assert num_requests["image"] == 3
        assert num_requests["api"] <= 12

        # Nothing has changed since: one request.
        assert scrape(source, lakes[name]).state == "unchanged"
        assert requests(wiki) == {"api": 1}

    graves = {
        grave.title: grave for grave in read_tombstones(lakes["all"], scrape(sources["all"], lakes["all"]).manifest)
    }
    assert {title: (grave.reason, grave.moved_to) for title, grave in graves.items()} == {
        "File:Kid-008.png": ("deleted", None),
        "File:Kid-010.png": ("moved", "File:Renamed with a redirect.png"),
        "File:Kid-011.png": ("moved", "File:Renamed without.png"),
        "File:Kid-012.png": ("moved", "File:Renamed twice.png"),
        "File:Kid-014.png": ("moved", "File:Kid-013.png"),
    }
    reasons = {
        grave.reason for grave in read_tombstones(lakes["pages"], scrape(sources["pages"], lakes["pages"]).manifest)
    }
    assert reasons == {"deleted", "moved", "not-selected"}

    # What no list of changes shows is found when everything is listed again.
    wiki.apply(imports(tmp_path / "changes"))
    lake, source = lakes["all"], sources["all"]
    assert scrape(source, lake).state == "unchanged"
    reconciled = scrape(source, lake, reconcile=True).manifest
    fresh = scrape(source, Lake(str(tmp_path / "fresh again"), "all")).manifest
    assert reconciled.digest == fresh.digest
    assert rows_of(lake, reconciled)["File:Imported.png"].caption == "An import"
    assert originals_missing(lake, reconciled) == []

    # A file that comes back has no tombstone any more.
    wiki.undelete("File:Kid-008.png")
    restored = scrape(source, lake).manifest
    assert "File:Kid-008.png" in rows_of(lake, restored)
    assert "File:Kid-008.png" not in {grave.title for grave in read_tombstones(lake, restored)}
    assert "File:Kid-010.png" in {grave.title for grave in read_tombstones(lake, restored)}


def test_files_that_were_in_the_lake_are_asked_for_again_only_if_their_bytes_are_new(fresh_mediawiki, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (70, 70), {"one": "red", "two": "blue"}[name]).save(folder / f"{name}.png")
    wiki, lake, source = fresh_mediawiki, Lake(str(tmp_path), "kids"), source_of(fresh_mediawiki.url)
    wiki.upload(folder / "one.png", "Kid.png")
    digests = [scrape(source, lake).manifest.digest]
    wiki.clear_log()
    for number, colour in enumerate(("two", "one", "two")):
        # MediaWiki keeps one old version a second.
        timestamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() - 60 + number))
        wiki.upload(folder / f"{colour}.png", "Kid.png", comment="again", ts=timestamp)
        digests.append(scrape(source, lake).manifest.digest)
    assert len(lake.list("originals")) == 2
    assert requests(wiki)["image"] == 1
    assert len(set(digests)) == 4  # the time of each upload is part of its row


BOX = (
    '<includeonly><infobox><title source="name"/><image source="image"><default>{picture}</default></image>'
    '<group><header>Looks</header><data source="coat"><label>Coat</label></data></group></infobox></includeonly>'
)


def test_pictures_that_only_a_template_shows_are_read_from_the_html_of_one_page_each(fresh_mediawiki, tmp_path):
    """The wikitext of these pages names no picture: a template, or a page that they include, does."""
    from PIL import Image

    wiki, lake, source = fresh_mediawiki, Lake(str(tmp_path), "kids"), source_of(fresh_mediawiki.url)
    for number, name in enumerate(("By template", "In a gallery", "Told", "Nowhere")):
        Image.new("RGB", (70, 70), (60 * number, 9, 9)).save(tmp_path / f"{name}.png")
    wiki.apply({"op": "upload", "name": path.name, "src": str(path)} for path in sorted(tmp_path.glob("*.png")))
    wiki.apply(
        {"op": "edit", "title": title, "text": text}
        for title, text in {
            "Template:Kid": BOX.format(picture="By template.png"),
            "Kid": "{{Kid|name=Ada|coat=red}}\n'''Ada''' is a kid in red.\n{{Shown}}[[File:Told.png|thumb|Told here]]",
            "Template:Shown": "<gallery>\nIn a gallery.png|Ada in a gallery\n</gallery>",
            "Another": "Another page.\n{{Shown}}",
        }.items()
    )
    wiki.clear_log()
    first = rows_of(lake, scrape(source, lake).manifest)
    parses = [access for access in wiki.log() if "action=parse" in access.uri]
    assert len(parses) == 2  # one page for each picture, not one for each page
    row = first["File:By template.png"]
    assert (row.owner_title, row.subject, row.caption) == ("Kid", "Ada", "Ada: coat red")
    assert [(attribute.field, attribute.value) for attribute in row.attributes] == [("coat", "red")]
    assert first["File:In a gallery.png"].caption == "Ada in a gallery"
    assert first["File:Told.png"].caption == "Told here"
    assert first["File:Nowhere.png"].caption == "Nowhere"

    # MediaWiki dates parsed pages by the second: a page parsed in the second of an edit would count as newer than it.
    time.sleep(1.1)
    # The template shows another picture now: the page's own text did not change.
    wiki.edit("Template:Kid", BOX.format(picture="Nowhere.png"))
    changed = rows_of(lake, scrape(source, lake).manifest)
    assert changed["File:Nowhere.png"].caption == "Ada: coat red"
    assert changed["File:By template.png"].caption == "By template"
    fresh, unread = Lake(str(tmp_path / "fresh"), "kids"), Lake(str(tmp_path / "unread"), "kids")
    assert changed == rows_of(fresh, scrape(source, fresh).manifest)
    rows = rows_of(unread, scrape(source_of(wiki.url, max_html_pages=0), unread).manifest)
    assert rows["File:Nowhere.png"].caption == "Nowhere"
