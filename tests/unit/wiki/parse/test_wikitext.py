"""What is read from the wikitext of pages and of file pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.wiki.parse import file_page as filepage
from sp_data.wiki.parse import wikitext
from sp_data.wiki.parse.page import Use
from sp_data.wiki.parse.plaintext import first_sentence, plain, split_options
from sp_data.wiki.parse.titles import ENGLISH


def read(text, title="Ada Birch"):
    return wikitext.read(text, title, 1, 2, ENGLISH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'''Ada''' is ''a'' [[Kid|kid]] of [[Paper Town]].", "Ada is a kid of Paper Town."),
        ("Ada<ref>Page 3</ref> waits<ref name=x />.", "Ada waits."),
        ("Ada {{Citation needed}} waits {{nowrap|here}}", "Ada waits"),
        ("a<br>b<br />c", "a b c"),
        ("<small>1997</small> &amp; &eacute; &lt;b&gt;", "1997 & é <b>"),
        ("see [https://x.invalid the book] [https://x.invalid]", "see the book"),
        ("[[File:A.png|thumb|no]] yes [[Category:Kids]]", "yes"),
        ("[[:File:A.png]] [[:Category:Kids]]", "File:A.png Category:Kids"),
        ("[[Media:A.ogg]]tune", "tune"),
        ("<!-- no -->yes __NOTOC__", "yes"),
        ("{|\n| table\n|}text", "text"),
        ("{{{1|argument}}}text", "text"),
        ("* one\n* two", "one two"),
        ("unclosed '''bold and [[link and {{template", "unclosed bold and link and template"),
        ("<script>alert(1)</script>text", "text"),
    ],
)
def test_plain_words_hold_no_markup(text, words):
    assert plain(text, ENGLISH) == words


@given(st.text(alphabet="ab[]{}|'<>=\n*#:!-&; /refgallery", max_size=60))
def test_no_text_is_too_broken_to_be_read(text):
    page = read(text)
    assert "\n" not in page.lead
    filepage.read(text, ENGLISH)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Ada is a kid. She swims.", "Ada is a kid."),
        ("Dr. Mephesto met J. K. Rowling. Then he left.", "Dr. Mephesto met J. K. Rowling."),
        ('"Hello." She left.', '"Hello."'),
        ("Version 1.5 is out! Yes.", "Version 1.5 is out!"),
        ("No end", "No end"),
        ("e.g. this goes on. Über.", "e.g. this goes on."),
    ],
)
def test_the_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


def test_bars_inside_links_and_templates_part_nothing():
    assert split_options("a|b [[c|d]] {{e|f}}|g") == ["a", "b [[c|d]] {{e|f}}", "g"]
    assert split_options("") == [""]
    assert split_options("a]]|b") == ["a]]", "b"]


def test_an_infobox_has_fields_and_shows_its_picture():
    page = read(
        "{{Infobox kid\n|name=Ada\n|image = ada_Birch.png\n|caption=Ada at the [[lake]]\n|alt=a kid\n|hat_kind = cap\n"
        "|jobs = [[Student]]<br>Hero<ref>x</ref>\n|empty =\n|{{{x}}}\n|positional}}"
    )
    (box,) = page.infoboxes
    assert box.fields == {
        "name": "Ada",
        "caption": "Ada at the lake",
        "alt": "a kid",
        "hat kind": "cap",
        "jobs": "Student, Hero",
    }
    assert box.pictures == (Use("Ada Birch.png", "infobox", "Ada at the lake", "a kid"),)
    assert page.uses == ()


def test_an_infobox_may_show_a_link_or_a_gallery_or_numbered_pictures():
    page = read(
        "{{Character infobox|image=[[File:One.png|250px|First]]|image2=Two.png|caption2=Second\n"
        "|gallery=<gallery>\nThree.png|Third\nFour.png\n</gallery>}}"
    )
    (box,) = page.infoboxes
    assert [(use.name, use.caption) for use in box.pictures] == [
        ("One.png", "First"),
        ("Two.png", "Second"),
        ("Three.png", "Third"),
        ("Four.png", ""),
    ]
    assert page.uses == ()


def test_a_template_above_the_first_heading_that_shows_a_picture_is_an_infobox():
    assert read("{{Kid|image=A.png|coat=red}}\nText").infoboxes
    assert not read("{{Quote|image=A.png|said=red}}\nText").infoboxes
    assert not read("Text\n== Friends ==\n{{Kid|image=A.png|coat=red}}").infoboxes
    assert not read("{{Kid|image=|coat=red}}").infoboxes


def test_pictures_come_with_caption_alt_and_heading():
    page = read(
        "[[File:A.png|thumb|left|100px|Ada [[x|swims]]|alt=a kid]]\n== At the ''lake'' ==\n"
        "[[Image:b.png|50px|tooltip]] [[File:C.png|frame]] [[:File:D.png]]\n"
        "<gallery mode=packed>\nE.png|Ada|alt=x|link=Ada\nFile:F.png\n\nhttps://x.invalid/g.png|no\n</gallery>\n"
        "{{Tabs|[[File:G.png|thumb|in a template]]}}"
    )
    assert page.uses == (
        Use("A.png", "thumb", "Ada swims", "a kid", ""),
        Use("B.png", "inline", "tooltip", "", "At the lake"),
        Use("C.png", "thumb", "", "", "At the lake"),
        Use("E.png", "gallery", "Ada", "x", "At the lake"),
        Use("F.png", "gallery", "", "", "At the lake"),
        Use("G.png", "thumb", "in a template", "", "At the lake"),
    )


def test_the_lead_is_the_first_sentence_before_any_heading():
    assert (
        read("{{Infobox|a=b}}\n:''See also [[X]]''\n\n'''Ada''' is a kid. She swims.\n== A ==\nNo.").lead
        == "Ada is a kid."
    )
    assert read("== A ==\nNo.").lead == ""
    assert read("<gallery>\nA.png|no\n</gallery>").lead == ""
    assert read("{{PAGENAME}} is a kid.").lead == "Ada Birch is a kid."
    assert read("* one\n* two\n\nThree.").lead == "Three."


def test_categories_of_a_page():
    assert read("[[Category:Kids|Birch]] [[category:paper_kids]] [[:Category:No]] [[Category:Kids]]").categories == (
        "Kids",
        "Paper kids",
    )


@pytest.mark.parametrize(
    ("text", "licence", "templates", "summary"),
    [
        ("== Summary ==\nAda waits.\n== Licensing ==\n{{fairuse}}", "Fairuse", ("Fairuse",), "Ada waits."),
        ("{{Self}}\n{{CC-BY-SA}}\nFan art.", "CC-BY-SA", ("CC-BY-SA", "Self"), "Fan art."),
        ("{{Opt-out}} {{PD-old}}", "PD-old", ("Opt-out", "PD-old"), ""),
        ("{{Opt-out}}", None, ("Opt-out",), ""),
        ("{{Information|description=Ada [[x|waits]]|author={{u|x}}}}", None, ("Information", "U"), "Ada waits"),
        ("{{#if:x|y}} {{DEFAULTSORT:x}} {{PAGENAME}}", None, (), ""),
        ("== Licensing ==\nAll rights reserved.", None, (), ""),
        ("", None, (), ""),
    ],
)
def test_a_file_page_tells_licence_templates_and_summary(text, licence, templates, summary):
    page = filepage.read(text, ENGLISH)
    assert (page.licence, page.templates, page.summary) == (licence, templates, summary)
