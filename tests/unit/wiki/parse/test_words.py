"""Each wiki's own words, from what real MediaWikis told of themselves (tests/data/siteinfo)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from sp_data.wiki.parse import file_page as filepage
from sp_data.wiki.parse import wikitext
from sp_data.wiki.parse.page import Use
from sp_data.wiki.parse.plaintext import plain
from sp_data.wiki.parse.titles import ENGLISH, Namespaces
from sp_data.wiki.parse.words import Words

RECORDED = Path(__file__).parents[3] / "data" / "siteinfo"
LANGUAGES = sorted(path.stem for path in RECORDED.glob("*.json"))
VALUES = {"img_width": "200", "img_upright": "1.5", "img_page": "3", "img_link": "Ada", "img_lang": "de"}
IN_PROSE = {"img_page"}
"""'page 3' may be a caption."""


@cache
def wiki(language: str) -> Namespaces:
    return Namespaces.of_siteinfo(json.loads((RECORDED / f"{language}.json").read_bytes()))


def uses(text: str, language: str) -> list[tuple[str, str, str, str]]:
    page = wikitext.read(text, "Ada", 1, 1, wiki(language))
    return [(use.name, use.kind, use.caption, use.alt) for use in page.uses]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_magic_word_of_a_picture_is_a_caption(language):
    words = wiki(language).words
    assert len(words.options) > 30
    for name, alias in words.options:
        if name in IN_PROSE and "=" not in alias:
            continue
        option = alias.replace("$1", VALUES.get(name, "x"))
        kind = words.option(option)
        assert kind is not None, (name, option)
        assert (kind == ("alt", "x")) == (name == "img_alt" and "$1" in alias)
        assert (kind[0] == "frame") == (name in ("img_thumbnail", "img_framed"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("thumb", "frame"),
        ("left", "word"),
        ("200px", "setting"),
        ("x200px", "setting"),
        ("100x200 px", "setting"),
        ("upright=1.5", "setting"),
        ("upright 0.8", "setting"),
        ("link=", "setting"),
        ("link=Ada", "setting"),
        ("alt=a kid", "alt"),
        ("upright and proud", None),
        ("page 3 of the book", None),
        ("left of Ada", None),
        ("a kid", None),
        ("px", None),
    ],
)
def test_english_options_hold_on_every_wiki(language, option, kind):
    found = wiki(language).words.option(option)
    assert (found[0] if found else None) == kind


@pytest.mark.parametrize("language", LANGUAGES)
def test_switches_and_the_pages_name_are_no_words(language):
    spaces = wiki(language)
    for switch in spaces.words.switches:
        assert plain(f"Ada {switch} waits", spaces) == "Ada waits"
    for word in spaces.words.page_name:
        page = wikitext.read(f"{{{{{word}}}}} is a kid.", "Ada", 1, 1, spaces)
        assert page.lead == "Ada is a kid."
        assert filepage.read(f"{{{{{word}}}}}", spaces).templates == ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_licence_stands_under_the_wikis_own_heading(language):
    spaces = wiki(language)
    assert spaces.words.licence_headings
    for heading in spaces.words.licence_headings:
        page = filepage.read(f"Ada waits.\n== {heading} ==\nAll rights reserved.\n{{{{Own}}}}", spaces)
        assert (page.licence, page.summary) == ("Own", "Ada waits.")
        page = filepage.read(f"== {heading} ==\nAll rights.\n=== More ===\nEven more.\n== Other ==\nAda.", spaces)
        assert page.summary == "Ada."


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_description_has_the_wikis_own_field(language):
    spaces = wiki(language)
    assert spaces.words.descriptions
    for field in spaces.words.descriptions:
        assert filepage.read(f"{{{{Any|x=y|{field} = Ada waits.}}}}", spaces).summary == "Ada waits."
    # The field of a wiki's own invention: in {{Information}} it is the first.
    assert filepage.read("{{Information|own=Ada waits.|x=y}}", spaces).summary == "Ada waits."
    assert filepage.read("{{Other|own=Ada waits.|x=y}}", spaces).summary == ""
    assert filepage.read("{{Information|own=|x=y}}", spaces).summary == ""


def test_a_description_in_several_languages_is_read_in_the_wikis_own():
    text = "{{Information|description={{en|1=A kid}} {{de|1=Ein Kind}}|x=y}}"
    assert filepage.read(text, wiki("de")).summary == "Ein Kind"
    assert filepage.read(text, wiki("fr")).summary == "A kid"


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("[[Datei:a.png|mini|rechts|Ada]]", ("A.png", "thumb", "Ada", "")),
        ("[[Datei:A.png|mini|links|200px]]", ("A.png", "thumb", "", "")),
        ("[[Datei:A.png|Ada am See|mini|hochkant=1.5]]", ("A.png", "thumb", "Ada am See", "")),
        (
            "[[Bild:A.png|miniatur|zentriert|alternativtext=Ein Mantel|verweis=Ada]]",
            ("A.png", "thumb", "", "Ein Mantel"),
        ),
        ("[[Datei:A.png|gerahmt|ohne]]", ("A.png", "thumb", "", "")),
        ("[[Datei:A.png|rahmenlos|hochkant|tiefgestellt]]", ("A.png", "inline", "", "")),
        ("[[Datei:A.png|hochkant gehalten]]", ("A.png", "inline", "hochkant gehalten", "")),
        ("[[Datei:A.png|Seite 3]]", ("A.png", "inline", "Seite 3", "")),
        ("[[Datei:A.png|mini|erste|zweite]]", ("A.png", "thumb", "zweite", "")),
        ("[[Datei:A.png|mini<!-- links -->|Ada]]", ("A.png", "thumb", "Ada", "")),
        ("[[Datei:A.png#Abschnitt|mini|Ada]]", ("A.png", "thumb", "Ada", "")),
        ("[[&#68;atei:A.png|mini|Ada]]", ("A.png", "thumb", "Ada", "")),
        ("<gallery>\nA.png|Ada|verweis=Ada\n</gallery>", ("A.png", "gallery", "Ada", "")),
        ("<gallery>\nBild:A.png|alternativtext=Ada\n</gallery>", ("A.png", "gallery", "", "Ada")),
        ("<gallery>\nA.png|Links\n</gallery>", ("A.png", "gallery", "Links", "")),
        ("<gallery>\nA.png|Ada|mini|rechts\n</gallery>", ("A.png", "gallery", "Ada", "")),
    ],
)
def test_a_german_picture(text, use):
    assert uses(text, "de") == [use]


def test_links_to_other_wikis_show_no_picture_and_other_languages_no_text():
    query = json.loads((RECORDED / "de.json").read_bytes())
    query["interwikimap"] = [{"prefix": "fr", "language": "français"}, {"prefix": "w", "url": "x"}]
    spaces = Namespaces.of_siteinfo(query)
    page = wikitext.read("[[fr:Fichier:A.png|mini|x]][[fr:Ada]][[:fr:Ada]] [[w:Ada|Ada]] wartet.", "Ada", 1, 1, spaces)
    assert (page.uses, page.lead) == ((), "fr:Ada Ada wartet.")


def test_the_media_namespace_and_the_templates_have_their_own_names():
    assert plain("[[Medium:A.ogg]]ein Lied", wiki("de")) == "ein Lied"
    assert filepage.read("{{Vorlage:Bild-frei}} {{template:x}}", wiki("de")).templates == ("Bild-frei", "X")


def test_contents_of_an_extensions_tag_are_no_text():
    query = {"extensiontags": ["<youtube>", "<poem>"]}
    spaces = Namespaces.of_siteinfo(query)
    assert plain("<youtube>dQw4</youtube>Ada <poem>waits</poem>", spaces) == "Ada waits"


def test_the_wikis_own_list_of_licences_names_licences():
    licences = "* group\n** Eigenes Werk|Mein eigenes Bild\n** {{Frei}}|Frei\n* kaputt"
    spaces = Namespaces.of_siteinfo({"allmessages": [{"name": "licenses", "content": licences}]})
    assert spaces.words.licences == ("Eigenes Werk", "Frei")
    assert filepage.read("{{Irgendwas}} {{eigenes Werk}} {{CC-BY}}", spaces).licence == "Eigenes Werk"


def test_titles_follow_the_wikis_rules_for_capitals():
    query = {
        "general": {"lang": "tr"},
        "namespaces": {
            "6": {"id": 6, "name": "Dosya", "case": "first-letter"},
            "14": {"id": 14, "name": "Kategori", "case": "case-sensitive"},
        },
    }
    turkish = Namespaces.of_siteinfo(query)
    assert turkish.file_name("dosya:ilk.png") == "İlk.png"
    query["namespaces"]["6"]["case"] = "case-sensitive"
    assert Namespaces.of_siteinfo(query).file_name("Dosya:ada_Birch.png") == "ada Birch.png"


def test_a_wiki_that_tells_nothing_speaks_english():
    silent = Namespaces.of_siteinfo({})
    assert silent == ENGLISH
    page = wikitext.read("[[File:A.png|thumb|left|Ada|alt=a kid]]", "Ada", 1, 1, silent)
    assert page.uses == (Use("A.png", "thumb", "Ada", "a kid"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-{zh-hans:红外套;zh-hant:紅外套}-", "红外套"),
        ("-{zh-hant:紅外套;zh-hans:红外套;}-", "紅外套"),
        ("Ada-{A|zh-hk:B}-C", "AdaBC"),
        ("-{Ada}-", "Ada"),
        ("-{R|zh 2}-", "zh 2"),
        ("-{T|zh-hans:题}-Ada", "Ada"),
        ("-{H|zh-hans:题}-Ada", "Ada"),
        ("-{-|zh-hans:题}-Ada", "Ada"),
        ("a-{b", "a-{b"),
    ],
)
def test_one_variant_of_a_text_is_read(text, words):
    chinese = wiki("zh")
    assert "zh-hant" in chinese.variants
    page = wikitext.read(f"[[文件:A.png|缩略图|{text}]]", "Ada", 1, 1, chinese)
    assert page.uses == (Use("A.png", "thumb", words, ""),)


def test_a_wiki_without_variants_has_no_such_markup():
    assert uses("[[Datei:A.png|mini|-{Ada}-]]", "de") == [("A.png", "thumb", "-{Ada}-", "")]


@pytest.mark.parametrize(
    "heading",
    [
        "Licensing",
        "Лицензия",
        "저작권",
        "著作権",
        "授权协议",
        "Urheberrecht",
        "Prawa autorskie",
        "Diritti d'autore",
        "Direitos autorais",
    ],
)
def test_headings_of_a_licence_are_known_beside_the_wikis_own(heading):
    assert Words().is_licence_heading(heading)


@pytest.mark.parametrize("blank", ["-", "", " ", "a"])
def test_a_message_that_was_blanked_makes_no_heading_a_licences(blank):
    query = {"allmessages": [{"name": "license-header", "content": blank}]}
    assert not Words.of_answer(query).is_licence_heading("Nah-Aufnahme am See")
