import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.wiki.parse.titles import ENGLISH, Namespaces, cleaned_name, looks_like_picture, normal_name, owner_key


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ada_Birch.png", "Ada Birch.png"),
        (" Ada   Birch.png ", "Ada Birch.png"),
        ("Ada%20Birch.png", "Ada Birch.png"),
        ("Chef&#39;s &quot;Salty&quot; Balls.png", 'Chef\'s "Salty" Balls.png'),
        ("50% & more+plus.png", "50% & more+plus.png"),
        ("\u200eéclair.png\u200e", "Éclair.png"),
        ("ßtraße.png", "ßtraße.png"),
        ("日本語_の.png", "日本語 の.png"),
        # What looks like an entity of HTML needs its semicolon; what is invisible but no mark of direction stays.
        ("Kenny&ethan.png", "Kenny&ethan.png"),
        ("Then&current.png", "Then&current.png"),
        ("A&ethan;b.png", "A&ethan;b.png"),
        ("Ada\u200bBirch.png", "Ada\u200bBirch.png"),
        ("Soft\u00adhyphen.png", "Soft\u00adhyphen.png"),
        ("e&#769;clair.png", "Éclair.png"),
        ("100%.png", "100%.png"),
        ("%ff%C3%A9.png", "%ff%C3%A9.png"),
        ("", ""),
    ],
)
def test_a_name_has_one_form_however_it_is_written(written, name):
    assert normal_name(written) == name


@given(st.text())
def test_the_normal_form_of_plain_names_is_its_own(text):
    once = normal_name(text)
    if "&" not in once and "%" not in once:
        assert normal_name(once) == once


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("File:a.png", "A.png"),
        ("image : a.png", "A.png"),
        ("FILE:A_b.png", "A b.png"),
        (":File:a.png", None),
        ("Media:a.ogg", None),
        ("a.png", None),
        ("File:", None),
    ],
)
def test_a_link_shows_a_file_or_it_does_not(target, name):
    assert ENGLISH.file_name(target) == name


def test_a_wiki_in_another_language_has_its_own_words():
    query = {
        "namespaces": {
            "6": {"id": 6, "name": "Datei", "canonical": "File"},
            "14": {"id": 14, "name": "Kategorie", "canonical": "Category"},
            "0": {"id": 0, "name": ""},
        },
        "namespacealiases": [{"id": 6, "alias": "Bild"}, {"id": 1, "alias": "Schwatz"}],
    }
    german = Namespaces.of_siteinfo(query)
    assert (
        german.file_name("Bild:a.png") == german.file_name("datei:a.png") == german.file_name("File:a.png") == "A.png"
    )
    assert german.category_name("Kategorie:Kinder") == "Kinder"
    assert german.file_name("Schwatz:a.png") is None


def test_the_words_of_a_file_name():
    assert cleaned_name("4th-graders-leslie.png") == "4th graders leslie"
    assert cleaned_name("Class photo, 1997 (season 1).jpg") == "Class photo, 1997 (season 1)"
    assert cleaned_name(".png") == ".png"
    assert owner_key("Señor Dóminguez") == owner_key(cleaned_name("señor-dóminguez.png"))


def test_what_a_bare_infobox_value_must_look_like_to_be_a_picture():
    assert looks_like_picture("Ada Birch.PNG")
    assert not looks_like_picture("Ada Birch")
    assert not looks_like_picture("One.png\nTwo.png")
    assert not looks_like_picture("x" * 300 + ".png")
