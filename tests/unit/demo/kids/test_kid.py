"""Who the kids are: a pure function of (n, seed), and never a held-out pair."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_data.demo.kids.kid import COLOURS, HAIR, HAT_KINDS, HELD_OUT, PLACES, SKIN, caption, kids


@given(fewer=st.integers(0, 40), more=st.integers(0, 40), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_kid_does_not_depend_on_how_many_there_are(fewer: int, more: int, seed: int) -> None:
    assert kids(fewer + more, seed)[:fewer] == kids(fewer, seed)


def test_seeds_differ() -> None:
    assert kids(3, 1) != kids(3, 2)


def test_names_are_unique_for_many_more_kids_than_any_demo_has() -> None:
    assert len({kid.name for kid in kids(12_000, 5)}) == 12_000


def test_no_name_holds_a_word_of_a_caption() -> None:
    caption_words = {
        word for words in (COLOURS, HAT_KINDS, HAIR, SKIN, PLACES) for value in words for word in value.split()
    }
    assert not caption_words & {word.lower() for kid in kids(10_000, 0) for word in kid.name.split()}


def test_every_colour_is_held_out_once_as_a_coat_and_once_as_a_hat() -> None:
    assert sorted(coat for coat, _ in HELD_OUT) == sorted(hat for _, hat in HELD_OUT) == sorted(COLOURS)


def test_all_other_pairs_occur_and_held_out_ones_never() -> None:
    pairs = {(kid.coat, kid.hat) for kid in kids(2000, 9)}
    assert len(pairs) == 64 - 8
    assert not pairs & HELD_OUT


def test_a_held_out_kid_cannot_even_be_made() -> None:
    coat, hat = min(HELD_OUT)
    with pytest.raises(ValueError, match="held out"):
        replace(kids(1, 0)[0], coat=coat, hat=hat)


def test_colours_are_far_apart() -> None:
    assert min(math.dist(first, second) for first, second in combinations(COLOURS.values(), 2)) > 90
    neutral = [*SKIN.values(), *HAIR.values()]
    assert min(math.dist(shade, colour) for shade in neutral for colour in COLOURS.values()) > 70


def test_no_colour_needs_the_article_an() -> None:
    assert not [colour for colour in COLOURS if colour[0] in "aeiou"]


def test_the_caption_says_what_is_worn_and_where() -> None:
    kid = replace(kids(1, 0)[0], coat="red", hat="blue", hat_kind="bobble hat", place="bus stop")
    assert caption(kid) == "a kid in a red coat and a blue bobble hat at the bus stop"
