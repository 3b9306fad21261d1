"""Whatever stands on a page, reading it ends, and gives what can be written and read again."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from fuzzing import few_and_many, fuzz, mutated
from hypothesis import given
from hypothesis import strategies as st
from mediawiki.languages import VOCABULARIES, language_ops
from mediawiki.sample import BASE_PAGES, FILE_PAGES, KID, OTHER_PAGES

from sp_data.runtime.bounded import GivenUp
from sp_data.wiki.facts import Facts
from sp_data.wiki.parse import bounded
from sp_data.wiki.parse.titles import ENGLISH, Namespaces, name_of
from sp_data.wiki.state import _KNOWN_FACTS, KnownFacts

RECORDED = Path(__file__).parents[3] / "data" / "siteinfo"
PAGES = [KID.replace("{{", "{").replace("}}", "}"), *OTHER_PAGES.values(), *BASE_PAGES.values(), *FILE_PAGES]
TOKENS = (
    *(
        b"{{",
        b"}}",
        b"{{{",
        b"}}}",
        b"[[",
        b"]]",
        b"|",
        b"=",
        b"\n",
        b"''",
        b"'''",
        b"\n== ",
        b" ==\n",
        b"\n{|\n",
        b"\n|}\n",
    ),
    *(
        b"<gallery>\n",
        b"\n</gallery>",
        b"<b ",
        b"<ref>",
        b"</ref>",
        b"<nowiki>",
        b"<!--",
        b"-->",
        b"<br>",
        b"__NOTOC__",
    ),
    *(b"[[File:A.png|thumb|", b"{{Infobox kid|image=", b"{{Information|description=", b"[[Category:", b"&#xD800;"),
    *(b"&#99999999;", b"&eth", b"%ff%00", b"\xe2\x80\xae", b"\x00", b"-{", b"}-", b"\n* ", b"[http://a ", b"{{#if:"),
)
HTML = """<div class="mw-parser-output"><aside class="portable-infobox"><h2 class="pi-title">Ada</h2>
<figure class="pi-image"><img src="/images/a/ab/A.png" data-image-key="A.png">
<figcaption class="pi-caption">x</figcaption></figure><div class="pi-data" data-source="hat">
<div class="pi-data-value">red</div></div></aside><p><b>Ada</b> is a kid.</p><h2>Gallery</h2>
<div class="wikia-gallery-item"><img data-src="/images/a/ab/B.png"><div class="lightbox-caption">y</div></div>
<ul><li class="gallerybox"><img src="/images/thumb/a/ab/C.png/120px-C.png" alt="c">
<div class="gallerytext">z</div></li></ul><div class="thumbinner"><img src="//x/a/ab/D%27.png">
<div class="thumbcaption">d</div></div></div>"""
HTML_TOKENS = (
    *(b"<", b">", b"</", b'"', b"<!--", b"<![CDATA[", b"<img src='//[/a/ab/x.png'>", b"<aside class=portable-infobox>"),
    *(
        b"<figure>",
        b"<figcaption>",
        b"<noscript>",
        b"<h2>",
        b"<p>",
        b"</p>",
        b"&#0;",
        b"&#xD800;",
        b"<svg>",
        b"<table>",
    ),
    *(b"data-image-key='%ff'", b"<template>", b"<li class=gallerybox>", b"</aside>", b"\x00", b"<plaintext>"),
)


@cache
def wiki(language: str) -> Namespaces:
    return Namespaces.of_siteinfo(json.loads((RECORDED / f"{language}.json").read_bytes()))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[bytes]:
    """Real pages in English and in other languages."""
    folder = tmp_path_factory.mktemp("pictures")
    foreign = [
        op["text"] for language in ("de", "ja") for op in language_ops(folder, VOCABULARIES[language]) if op["text"]
    ]
    return [text.encode() for text in (*PAGES, *foreign)]


def check_saved(facts: Facts) -> None:
    """What was read must come back from the file of the next run's facts."""
    saved = _KNOWN_FACTS.dump_json(KnownFacts(facts, {}))
    assert _KNOWN_FACTS.validate_json(saved).facts == facts


@few_and_many
def test_any_wikitext_is_read(num_inputs, seeds):
    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        page = bounded.read_page(text, "Ada", 1, 2, wiki("de"))
        assert "\n" not in page.lead
        check_saved(Facts(articles={"Ada": page}))

    fuzz(mutated(seeds, TOKENS), read, num_inputs, refusals=(GivenUp,))


@few_and_many
def test_any_file_page_is_read(num_inputs, seeds):
    def read(data: bytes) -> None:
        page = bounded.read_file_page(data.decode("utf-8", "replace"), wiki("ja"))
        check_saved(Facts(file_pages={"A.png": page}))

    fuzz(mutated(seeds, TOKENS), read, num_inputs, refusals=(GivenUp,))


@few_and_many
def test_any_html_is_read(num_inputs):
    def read(data: bytes) -> None:
        page = bounded.read_html(data.decode("utf-8", "replace"), "Ada", 1, 2)
        check_saved(Facts(articles={"Ada": page}))

    fuzz(mutated([HTML.encode()], HTML_TOKENS), read, num_inputs, refusals=(GivenUp,))


@few_and_many
def test_any_answer_about_a_wikis_language_is_read_or_odd(num_inputs):
    from fuzzing import mutated_json

    recorded = [json.loads((RECORDED / f"{language}.json").read_bytes()) for language in ("de", "zh-hans")]

    def read(query: object) -> None:
        if not isinstance(query, dict):
            return
        try:
            spaces = Namespaces.of_siteinfo(query)
        except (KeyError, TypeError, ValueError, AttributeError):
            # The stage says that the answer is not MediaWiki's.
            return
        bounded.read_page("[[File:A.png|thumb|__X__|Ada]] {{PAGENAME}}", "Ada", 1, 2, spaces)

    # Each input is 6 kB of JSON, and drawing one takes longer than reading it.
    fuzz(mutated_json(recorded), read, max(20, num_inputs // 10))


@given(st.text(alphabet="aé_ %&;:#|İßfile\u200e\u200b\u00ad", max_size=20))
def test_a_links_name_is_in_its_normal_form(text):
    for spaces in (ENGLISH, wiki("tr")):
        name = spaces.file_name(f"File:{text}")
        assert name is None or name == name.strip()
        # A name that the API gives is never changed.
        assert name_of(f"File:{text}") == text
