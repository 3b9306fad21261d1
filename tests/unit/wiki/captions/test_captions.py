"""Which captions a picture gets, from which page, and in which order."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data.wiki.captions.candidates import RANK, Index
from sp_data.wiki.captions.choose import Words, chosen, variants
from sp_data.wiki.captions.clip_length import num_tokens, shortened
from sp_data.wiki.captions.templates import fill
from sp_data.wiki.parse import wikitext
from sp_data.wiki.parse.titles import ENGLISH

ADA = "{{Infobox kid|name=Ada|image=Ada Birch.png|coat=red|hat kind=cap}}\nAda is a kid in red.\n[[Category:Kids]]"
BO = "{{Infobox kid|name=Bo|image=Bo.png|coat=blue}}\nBo is a kid in blue.\n<gallery>\nAda Birch.png\n</gallery>"


def index(pages: dict[str, str], *names: str, aliases: dict[str, str] | None = None) -> Index:
    built = Index(names, aliases or {})
    for number, (title, text) in enumerate(pages.items()):
        built.add(wikitext.read(text, title, number, number, ENGLISH))
    return built


def captions_of(pages: Index, name: str, summary: str = "") -> list[tuple[str, str]]:
    return [(candidate.source, candidate.text) for candidate in pages.candidates(name, summary)]


def words(pages: Index, name: str, summary: str = "") -> Words:
    return Words(name, pages.candidates(name, summary), pages.owner(name))


def test_a_gallery_on_another_characters_page_lends_no_words():
    pages = index({"Bo": BO}, "Ada Birch.png")
    assert pages.owner("Ada Birch.png") is None
    assert captions_of(pages, "Ada Birch.png") == [("name", "Ada Birch")]


def test_the_page_whose_infobox_shows_the_picture_owns_it():
    pages = index({"Kid number one": ADA, "Bo": BO}, "Ada Birch.png", "Bo.png")
    assert pages.owner("Ada Birch.png").page.title == "Kid number one"
    assert captions_of(pages, "Ada Birch.png", "Ada waits.") == [
        ("infobox", "Ada: coat red, hat kind cap"),
        ("summary", "Ada waits."),
        ("title", "Kid number one"),
        ("lead", "Ada is a kid in red."),
        ("categories", "Kids"),
        ("name", "Ada Birch"),
    ]


def test_the_page_of_the_pictures_name_owns_it_but_an_infobox_goes_first():
    by_name = index({"Ada birch": "Ada is a kid."}, "Ada-Birch.png")
    assert by_name.owner("Ada-Birch.png").page.title == "Ada birch"
    assert by_name.owner("Ada-Birch.png").fields == {}
    both = index({"Ada Birch": "Ada is a kid.", "Zoe": "{{Infobox|image=Ada Birch.png}}"}, "Ada Birch.png")
    assert both.owner("Ada Birch.png").page.title == "Zoe"


def test_of_several_owners_the_one_of_its_name_then_no_subpage_then_the_first():
    box = "{{Infobox|image=Ada.png|coat=red}}"
    assert index({"Zoe": box, "Ada": box}, "Ada.png").owner("Ada.png").page.title == "Ada"
    assert index({"A/Old": box, "Zoe": box}, "Ada.png").owner("Ada.png").page.title == "Zoe"
    assert index({"Zoe": box, "Mia": box}, "Ada.png").owner("Ada.png").page.title == "Mia"


def test_a_caption_below_the_picture_comes_first_and_the_owners_before_others():
    pages = index(
        {
            "Bo": "[[File:Ada Birch.png|thumb|Ada and Bo]]",
            "Ada": ADA + "\n== Childhood ==\n[[File:Ada Birch.png|thumb|Ada at the lake|alt=a kid in water]]",
        },
        "Ada Birch.png",
    )
    assert captions_of(pages, "Ada Birch.png")[:4] == [
        ("thumb", "Ada at the lake"),
        ("thumb", "Ada and Bo"),
        ("infobox", "Ada: coat red, hat kind cap"),
        ("alt", "a kid in water"),
    ]
    assert ("section", "Childhood") in captions_of(pages, "Ada Birch.png")


def test_a_page_that_uses_an_old_name_lends_its_caption():
    pages = index({"X": "[[File:Old.png|thumb|Hello]]"}, "New.png", aliases={"Old.png": "New.png"})
    assert captions_of(pages, "New.png")[0] == ("thumb", "Hello")


def test_a_file_name_is_no_caption():
    pages = index({"X": "[[File:A.png|thumb|A.png|alt=Other.jpg]]"}, "A.png")
    assert captions_of(pages, "A.png") == [("name", "A")]


def test_a_template_is_filled_from_the_owners_infobox():
    pages = index({"Ada": ADA, "Bo": BO}, "Ada Birch.png", "Bo.png")
    templates = ["{name} in {coat} and a {hat kind}", "a {coat} coat"]

    assert chosen(words(pages, "Ada Birch.png"), templates) == "Ada in red and a cap"
    assert chosen(words(pages, "Bo.png"), templates) == "a blue coat"
    nobody = index({"Bo": BO}, "Ada Birch.png")
    assert chosen(words(nobody, "Ada Birch.png"), templates) == "Ada Birch"


def test_a_name_that_the_infobox_leaves_out_is_the_pages_title():
    pages = index({"Ada Birch": "{{Infobox kid|coat=red}}"}, "Ada Birch.png")
    assert chosen(words(pages, "Ada Birch.png"), ["{name}, {coat}"]) == "Ada Birch, red"


def test_fields_are_named_as_the_wiki_names_them():
    assert fill("a {Hat_kind}", {"hat kind": "cap"}) == "a cap"
    assert fill("a {hat}", {"hat kind": "cap"}) is None
    assert fill("{a}", {"a": "{b}", "b": "x"}) == "{b}"
    assert fill("no fields", {}) == "no fields"
    assert fill(r"{a}", {"a": r"\1"}) == r"\1"


def test_parts_in_brackets_are_left_out_where_a_field_is_missing():
    template = "{name}[ in {coat}][, {hair} hair]"
    assert fill(template, {"name": "Ada", "coat": "red", "hair": "black"}) == "Ada in red, black hair"
    assert fill(template, {"name": "Ada", "hair": "black"}) == "Ada, black hair"
    assert fill(template, {"coat": "red"}) is None
    # A name alone says nothing of looks: another template, or a caption from a page, may say more.
    assert fill(template, {"name": "Ada"}) is None
    assert fill(template, {"name": "Ada", "coat": "", "hair": ""}) is None


def test_templates_may_name_captions_by_their_kind():
    pages = index({"Ada": ADA}, "Ada Birch.png")
    assert chosen(words(pages, "Ada Birch.png", "Waiting."), ["{subject}: {lead} {summary}"]) == (
        "Ada: Ada is a kid in red. Waiting."
    )


def test_a_caption_that_is_only_a_name_is_the_last_choice():
    portal = "<gallery>\nAda Birch.png|[[Ada Birch]]\n</gallery>"
    known = index({"Portal": portal, "Ada Birch": "Ada Birch is a kid in red."}, "Ada Birch.png")
    assert captions_of(known, "Ada Birch.png")[0] == ("gallery", "Ada Birch")
    assert chosen(words(known, "Ada Birch.png"), []) == "Ada Birch is a kid in red."
    unknown = index({"Portal": portal}, "Ada Birch.png")
    assert chosen(words(unknown, "Ada Birch.png"), []) == "Ada Birch"


def test_the_name_is_kept_apart_from_the_attributes():
    both = words(index({"Kid one": ADA}, "Ada Birch.png"), "Ada Birch.png")
    assert (both.subject, both.attributes) == ("Ada", (("coat", "red"), ("hat kind", "cap")))
    nobody = words(index({}, "Ada-Birch.png"), "Ada-Birch.png")
    assert (nobody.subject, nobody.attributes) == ("Ada Birch", ())


def test_variants_drop_parts_and_are_the_same_for_the_same_seed():
    ada = words(index({"Ada": ADA}, "Ada Birch.png"), "Ada Birch.png")
    templates = ["{name}[ in {coat}][ with a {hat kind}]"]

    def drawn(seed: str, number: int = 3, dropout: float = 0.5) -> tuple[str, ...]:
        return variants(ada, templates, number, dropout=dropout, seed=seed)

    assert set(drawn("1")) == {"Ada", "Ada in red", "Ada with a cap"}
    assert drawn("1") == drawn("1")
    assert drawn("1", 1) != drawn("2", 1) or drawn("1", 2) != drawn("3", 2)
    assert drawn("1", 0) == drawn("1", dropout=0.0) == ()
    assert chosen(ada, templates) not in drawn("1")


def test_without_a_template_variants_are_the_other_captions_that_say_something():
    text = ADA + "\n[[File:Ada Birch.png|thumb|At the lake|alt=a kid in water]]"
    ada = words(index({"Ada": text}, "Ada Birch.png"), "Ada Birch.png")
    assert chosen(ada, []) == "At the lake"
    assert variants(ada, [], 2, dropout=0.3, seed="") == ("Ada: coat red, hat kind cap", "a kid in water")


@settings(deadline=None)  # the first example loads the tokenizer
@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_no_caption_is_longer_than_clip_reads(text):
    cut = shortened(text)
    assert num_tokens(cut) <= 75
    assert cut == text or num_tokens(text) > 75


def test_a_long_caption_ends_with_a_sentence_or_a_word():
    assert shortened("Ada waits at the lake. " * 20) == " ".join(["Ada waits at the lake."] * 12)
    endless = shortened("ada and " * 100)
    assert endless.split() == ["ada", "and"] * 37 + ["ada"]


@given(st.permutations(["Ada", "Bo", "Cy", "Di"]))
def test_the_order_in_which_pages_are_read_does_not_matter(order):
    texts = {title: f"[[File:A.png|thumb|{title} says|alt=by {title}]]" for title in order}
    assert captions_of(index(texts, "A.png"), "A.png") == captions_of(
        index(dict(sorted(texts.items())), "A.png"), "A.png"
    )


def test_captions_rank_from_the_one_below_the_picture_to_the_name():
    assert RANK["gallery"] == RANK["thumb"] < RANK["infobox-caption"] < RANK["alt"] < RANK["lead"] < RANK["name"]


@pytest.mark.parametrize("text", ["日" * 2_000_000, "a " * 1_000_000, "'" * 2_000_000])
def test_a_caption_of_megabytes_is_shortened_at_once(text):
    started = time.process_time()
    assert shortened(text) == shortened(text[:5000])
    assert time.process_time() - started < 5
