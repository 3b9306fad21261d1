"""The judge reads coats and hats from pixels, wherever the kid stands, and says so when there is none."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from sp_data.demo.kids.artist import COLOURS, HELD_OUT, Kid, draw, kids
from sp_data.judge.colours import CoatAndHat, colours_of_prompt, read
from sp_data.judge.stage import questions

CROWD = kids(150, 12)


def share_right(pictures: list[tuple[Kid, Image.Image]]) -> float:
    return sum(read(picture) == CoatAndHat(kid.coat, kid.hat) for kid, picture in pictures) / len(pictures)


@pytest.mark.parametrize("size_px", [32, 64, 256])
def test_it_reads_real_pictures(size_px: int) -> None:
    drawn = [(kid, draw(kid).resize((size_px, size_px), Image.Resampling.BICUBIC)) for kid in CROWD]
    assert share_right(drawn) >= 0.99


def moved(kid: Kid, rng: random.Random) -> Image.Image:
    """The picture at half to full size, anywhere on a larger sheet, as a decoder would draw it."""
    side = rng.randint(128, 256)
    sheet = Image.new("RGB", (256, 256), (214, 220, 226))
    sheet.paste(draw(kid).resize((side, side)), (rng.randint(0, 256 - side), rng.randint(0, 256 - side)))
    return sheet.resize((32, 32), Image.Resampling.BICUBIC)


def test_it_finds_the_kid_wherever_it_stands() -> None:
    rng = random.Random(1)
    assert share_right([(kid, moved(kid, rng)) for kid in CROWD]) >= 0.99


def test_it_is_not_put_off_by_speckles() -> None:
    rng, drawn = random.Random(2), []
    for kid in CROWD[:100]:
        picture = draw(kid, 32)
        for _ in range(40):
            picture.putpixel((rng.randrange(32), rng.randrange(32)), rng.choice(list(COLOURS.values())))
        drawn.append((kid, picture))
    assert share_right(drawn) >= 0.9


def test_a_coat_and_a_hat_of_one_colour_are_both_seen() -> None:
    same = [kid for kid in kids(300, 3) if kid.coat == kid.hat]
    assert len(same) > 20
    assert share_right([(kid, draw(kid, 32)) for kid in same]) >= 0.99


def test_an_empty_picture_has_neither_coat_nor_hat() -> None:
    assert read(Image.new("RGB", (32, 32), (206, 210, 222))) == CoatAndHat(None, None)


def test_a_kid_that_lost_its_hat_has_none() -> None:
    kid = CROWD[0]
    picture = draw(kid, 64)
    picture.paste((206, 210, 222), (0, 0, 64, 30))
    assert read(picture) == CoatAndHat(kid.coat, None)


def test_a_prompt_is_understood() -> None:
    assert colours_of_prompt("a kid in a red coat and a blue top hat at the lake") == CoatAndHat("red", "blue")
    assert colours_of_prompt("a kid with a lime hat") == CoatAndHat(None, "lime")
    assert colours_of_prompt("a samurai") == CoatAndHat(None, None)


def test_half_of_the_questions_are_of_pairs_that_nobody_drew() -> None:
    all_questions = questions(64, 0)
    assert len({question.prompt for question in all_questions}) == 64
    unseen = [question for question in all_questions if not question.seen]
    assert len(unseen) == 32
    assert {(question.coat, question.hat) for question in unseen} == set(HELD_OUT)
    assert not {(question.coat, question.hat) for question in all_questions if question.seen} & set(HELD_OUT)
    assert all(
        colours_of_prompt(question.prompt) == CoatAndHat(question.coat, question.hat) for question in all_questions
    )
    assert all_questions == questions(64, 0)
    assert all_questions != questions(64, 1)
