"""Real MediaWikis in other languages, and one whose titles may start with a small letter."""

from __future__ import annotations

import pytest
from mediawiki.languages import VOCABULARIES, Expected, expected, language_ops, name
from mediawiki.sample import draw_files
from mediawiki.wiki import MediaWiki, why_not
from stages import scrape

from sp_data.lake import Lake
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.tombstones import read_tombstones

from .conftest import source_of

pytestmark = [pytest.mark.mediawiki, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

LANGUAGES = [
    language if language == "de" else pytest.param(language, marks=pytest.mark.proof) for language in VOCABULARIES
]


def rows_after_scrape(wiki: MediaWiki, lake: Lake) -> dict[str, CatalogueRow]:
    manifest = scrape(source_of(wiki.url), lake).manifest
    assert read_tombstones(lake, manifest) == []
    return {row.name: row for row in catalogue_rows(read_catalogue(lake, manifest))}


def said(row: CatalogueRow) -> Expected:
    def texts(*kinds: str) -> tuple[str, ...]:
        return tuple(caption.text for caption in row.captions if caption.source in kinds)

    return Expected(
        captions=texts("thumb", "gallery", "infobox-caption"),
        alts=texts("alt"),
        licence=row.licence,
        summary="".join(texts("summary")),
        attributes=tuple((attribute.field, attribute.value) for attribute in row.attributes),
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wiki_is_read_in_its_own_language(language, tmp_path, lake):
    words = VOCABULARIES[language]
    with MediaWiki(tmp_path / "wiki", language=language) as wiki:
        wiki.apply(language_ops(wiki.root / "pictures", words))
        rows = rows_after_scrape(wiki, lake)
        assert {name: said(row) for name, row in rows.items()} == expected(words)
        num_listing = sum(access.kind == "api" for access in wiki.log())
        assert num_listing <= 5
        # What changes later is read by the same words.
        wiki.upload(wiki.root / "pictures/Kid-001.png", name(0))
        wiki.edit(f"{words.file}:{name(8)}", f"== {words.licence_heading} ==\n{words.licence_text}")
        wiki.edit("Ada", f"[[{words.file}:{name(3)}|{words.thumb}|{words.right}|{words.caption}]]")
        rows = rows_after_scrape(wiki, lake)
        assert (said(rows[name(3)]).captions, said(rows[name(0)]).captions) == ((words.caption,), ())
        assert (rows[name(8)].licence, said(rows[name(8)]).summary) == (None, "")
        wiki.clear_log()
        rows_after_scrape(wiki, lake)
        assert len(wiki.log()) == 1


def test_titles_that_look_like_markup_or_start_with_a_small_letter_stay_as_they_are(tmp_path, lake):
    names = (
        *("Kenny&ethan.png", "Then&current.png", "Ada\u200bBirch.png", "Soft\u00adhyphen.png", "100%.png"),
        *("ada.png", "Ada.png", "éclair.png"),
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draw_files(pictures, len(names))
    with MediaWiki(tmp_path / "wiki", language="fr", capital_links=False) as wiki:

        def upload(shift: int) -> None:
            for number, title in enumerate(names):
                picture = pictures / f"Kid-{(number + shift) % len(names):03d}.png"
                wiki.upload(picture, title, f"== Description ==\nPicture {number}.")

        upload(0)
        shown = "\n".join(f"[[Fichier:{title}|vignette|Caption {number}]]" for number, title in enumerate(names))
        wiki.edit("Ada", shown + "\n[[Fichier:Ada%2Epng|vignette|By its code]]")
        rows = rows_after_scrape(wiki, lake)
        assert set(rows) == set(names)
        captions = {title: row.caption for title, row in rows.items()}
        assert captions == {title: f"Caption {number}" for number, title in enumerate(names)}
        assert "By its code" in said(rows["Ada.png"]).captions
        before = {title: row.sha1 for title, row in rows.items()}
        upload(1)
        wiki.edit("Fichier:ada.png", "== Description ==\nAnother one.")
        rows = rows_after_scrape(wiki, lake)
        assert set(rows) == set(names)
        assert all(rows[title].sha1 != sha1 for title, sha1 in before.items())
        assert [c.text for c in rows["ada.png"].captions if c.source == "summary"] == ["Another one."]
        assert [c.text for c in rows["Ada.png"].captions if c.source == "summary"] == ["Picture 6."]
