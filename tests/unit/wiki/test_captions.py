"""Which captions a picture gets, from which page, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sp_data.wiki import wikitext
from sp_data.wiki.captions import RANK, Index, choose, fill
from sp_data.wiki.titles import ENGLISH

ADA = "{{Infobox kid|name=Ada|image=Ada Birch.png|coat=red|hat kind=cap}}\nAda is a kid in red.\n[[Category:Kids]]"
BO = "{{Infobox kid|name=Bo|image=Bo.png|coat=blue}}\nBo is a kid in blue.\n<gallery>\nAda Birch.png\n</gallery>"


def index(pages: dict[str, str], *names: str, aliases: dict[str, str] | None = None) -> Index:
    made = Index(names, aliases or {})
    for number, (title, text) in enumerate(pages.items()):
        made.add(wikitext.read(text, title, number, number, ENGLISH))
    return made


def said(made: Index, name: str, summary: str = "") -> list[tuple[str, str]]:
    return [(found.source, found.text) for found in made.candidates(name, summary)]


def test_a_gallery_on_another_characters_page_lends_no_words():
    made = index({"Bo": BO}, "Ada Birch.png")
    assert made.owner("Ada Birch.png") is None
    assert said(made, "Ada Birch.png") == [("name", "Ada Birch")]


def test_the_page_whose_infobox_shows_the_picture_owns_it():
    made = index({"Kid number one": ADA, "Bo": BO}, "Ada Birch.png", "Bo.png")
    assert made.owner("Ada Birch.png").page.title == "Kid number one"
    assert said(made, "Ada Birch.png", "Ada waits.") == [
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


def test_what_stands_below_the_picture_goes_before_all_else_and_the_owner_before_others():
    made = index(
        {
            "Bo": "[[File:Ada Birch.png|thumb|Ada and Bo]]",
            "Ada": ADA + "\n== Childhood ==\n[[File:Ada Birch.png|thumb|Ada at the lake|alt=a kid in water]]",
        },
        "Ada Birch.png",
    )
    assert said(made, "Ada Birch.png")[:4] == [
        ("thumb", "Ada at the lake"),
        ("thumb", "Ada and Bo"),
        ("infobox", "Ada: coat red, hat kind cap"),
        ("alt", "a kid in water"),
    ]
    assert ("section", "Childhood") in said(made, "Ada Birch.png")


def test_a_page_that_uses_an_old_name_lends_its_caption():
    made = index({"X": "[[File:Old.png|thumb|Hello]]"}, "New.png", aliases={"Old.png": "New.png"})
    assert said(made, "New.png")[0] == ("thumb", "Hello")


def test_a_file_name_is_no_caption():
    made = index({"X": "[[File:A.png|thumb|A.png|alt=Other.jpg]]"}, "A.png")
    assert said(made, "A.png") == [("name", "A")]


def test_a_template_is_filled_from_the_owners_infobox():
    made = index({"Ada": ADA, "Bo": BO}, "Ada Birch.png", "Bo.png")
    templates = ["{name} in {coat} and a {hat kind}", "a {coat} coat"]

    def chosen(name: str) -> str:
        return choose(made.candidates(name, ""), made.owner(name), templates)

    assert chosen("Ada Birch.png") == "Ada in red and a cap"
    assert chosen("Bo.png") == "a blue coat"
    nobody = index({"Bo": BO}, "Ada Birch.png")
    assert choose(nobody.candidates("Ada Birch.png", ""), nobody.owner("Ada Birch.png"), templates) == "Ada Birch"


def test_a_name_that_the_infobox_leaves_out_is_the_pages_title():
    made = index({"Ada Birch": "{{Infobox kid|coat=red}}"}, "Ada Birch.png")
    owner = made.owner("Ada Birch.png")
    assert choose(made.candidates("Ada Birch.png", ""), owner, ["{name}, {coat}"]) == "Ada Birch, red"


def test_fields_are_named_as_the_wiki_names_them():
    assert fill("a {Hat_kind}", {"hat kind": "cap"}) == "a cap"
    assert fill("a {hat}", {"hat kind": "cap"}) is None
    assert fill("{a}", {"a": "{b}", "b": "x"}) == "{b}"
    assert fill("no fields", {}) == "no fields"
    assert fill(r"{a}", {"a": r"\1"}) == r"\1"


@given(st.permutations(["Ada", "Bo", "Cy", "Di"]))
def test_the_order_in_which_pages_are_read_does_not_matter(order):
    texts = {title: f"[[File:A.png|thumb|{title} says|alt=by {title}]]" for title in order}
    assert said(index(texts, "A.png"), "A.png") == said(index(dict(sorted(texts.items())), "A.png"), "A.png")


def test_facts_rank_captions_from_what_is_below_the_picture_to_its_name():
    assert RANK["gallery"] == RANK["thumb"] < RANK["infobox-caption"] < RANK["alt"] < RANK["lead"] < RANK["name"]
