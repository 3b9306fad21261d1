"""Pages that nobody would write, and that no parser ends with."""

from __future__ import annotations

import time

import pytest

from sp_data.errors import StageError
from sp_data.runtime.bounded import BoundedWorker, GivenUp
from sp_data.wiki.parse import bounded, file_page, html, wikitext
from sp_data.wiki.parse.titles import ENGLISH

PAGE = (
    "{{Infobox kid|image=A.png|hat=red}}\n'''Ada''' is a kid.\n== At the lake ==\n[[File:B.png|thumb|Ada swims|alt=a]]"
)


def test_the_child_reads_what_the_parser_reads():
    assert bounded.read_page(PAGE, "Ada", 1, 2, ENGLISH) == wikitext.read(PAGE, "Ada", 1, 2, ENGLISH)
    text = "== Summary ==\nAda.\n== Licensing ==\n{{Fairuse}}"
    assert bounded.read_file_page(text, ENGLISH) == file_page.read(text, ENGLISH)
    markup = "<p>Ada.</p><img src='/images/a/ab/A.png' alt='Ada waits'>"
    assert bounded.read_html(markup, "Ada", 1, 2) == html.read(markup, "Ada", 1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<b " * 4000, "it has 4,000 unclosed <"),
        ("<ref>" * 20_000, "it has 20,000 unclosed <"),
        ('<b a="' * 20_000, "it has 20,000 unclosed <"),
        ("{{a|" * 20_000, "it has 20,000 unclosed {{"),
        ("[[File:a.png|" * 20_000, "it has 20,000 unclosed [["),
        ("[http://a " * 20_000, "it has 20,000 unclosed [http"),
        ("<!--" * 50_000, "it has 50,000 unclosed <!--"),
        ("{|\n|" * 20_000, "it has 20,000 unclosed {|"),
        ("x" * (5 << 20), "it has 5,242,880 characters"),
    ],
    ids=lambda text: text[:20],
)
def test_what_can_be_counted_is_given_up_at_once(text, reason):
    started = time.process_time()
    for read in (
        lambda: bounded.read_page(text, "Ada", 1, 2, ENGLISH),
        lambda: bounded.read_file_page(text, ENGLISH),
    ):
        with pytest.raises(GivenUp) as caught:
            read()
        assert str(caught.value).startswith(reason)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text",
    ["List<String> " * 1500, "a<br>" * 5000, "{{a}}" * 5000, "<ref name=x />" * 5000, "* a\n" * 5000, "[[a]]" * 5000],
    ids=lambda text: text[:20],
)
def test_long_pages_are_read(text):
    bounded.read_page(text, "Ada", 1, 2, ENGLISH)


@pytest.mark.proof
@pytest.mark.parametrize(
    "text",
    [
        "[[File:a.png|" * 20_000 + "]]" * 20_000,
        "<ref>" * 20_000 + "</ref>" * 20_000,
        "''\n" * 600_000,
        "<b " * 2000,
        "{{a|{{b|" * 10_000 + "}}" * 20_000,
        ("{{a|b=" * 38 + "x" + "}}" * 38) * 2000,
        "{|\n|" * 2000,
        "&#1114112;&#xD800;" * 10_000,
        "[[File:A.png" + "|thumb" * 300_000 + "]]",
        "<gallery>\nA.png" + "|b" * 800_000 + "\n</gallery>",
        "{{Infobox|image=A.png|b=c}}\n" * 60_000,
    ],
    ids=lambda text: text[:20],
)
def test_any_page_is_read_or_given_up_within_the_processors_time(text):
    for read in (
        lambda: bounded.read_page(text, "Ada", 1, 2, ENGLISH),
        lambda: bounded.read_file_page(text, ENGLISH),
    ):
        try:
            read()
        except GivenUp as reason:
            assert "it takes more than" in str(reason) or "MemoryError" in str(reason)
    assert bounded.read_page("Ada is a kid.", "Ada", 1, 2, ENGLISH).lead == "Ada is a kid."


def test_a_reader_that_does_not_start_ends_the_stage_and_costs_no_page(monkeypatch):
    monkeypatch.setattr(bounded, "_worker", lambda: BoundedWorker("no_such_module", cpu_s=1))
    with pytest.raises(
        StageError, match=r"no page can be read: python -m no_such_module does not start: .*no_such_module"
    ):
        bounded.read_page(PAGE, "Ada", 1, 2, ENGLISH)
