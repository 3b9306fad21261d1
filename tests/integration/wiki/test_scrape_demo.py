"""The scrape stage on the demo's own wiki, as `sp-data scrape demo` runs it."""

from __future__ import annotations

from stages import scrape

from sp_data.recipe import load_recipe
from sp_data.wiki.catalogue import catalogue_rows, read_catalogue
from sp_data.wiki.originals import originals_missing


def test_every_kid_gets_its_picture_and_a_caption_from_its_infobox(lake):
    source = load_recipe("demo", ["source.demo.num_kids=24"]).source
    result = scrape(source, lake)
    rows = {row.name: row for row in catalogue_rows(read_catalogue(lake, result.manifest))}
    assert originals_missing(lake, result.manifest) == []
    owned = [row for row in rows.values() if row.owner_title and row.status == "ok"]
    # One newcomer has no infobox.
    assert sum(row.caption.startswith("a kid in a ") for row in owned) == len(owned) - 1
    assert sum(row.templates == ("Opt-out",) for row in rows.values()) == 1
    assert result.manifest.counts.dropped == {
        "mime-not-wanted (application/ogg)": 1,
        "mime-not-wanted (image/svg+xml)": 1,
    }

    # The same wiki on another port: addresses and digests are equal.
    again = scrape(source, lake)
    assert (again.state, again.manifest) == ("unchanged", result.manifest)
