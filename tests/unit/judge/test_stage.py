"""The judge's scores: right colours count, exchanged or missing ones do not; seen and unseen pairs are apart."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, PngImagePlugin

from sp_data.dataset.embed.clip import load_clip
from sp_data.demo.kids.artist import Kid, draw, kids
from sp_data.demo.kids.kid import caption
from sp_data.judge.colours import CoatAndHat, read
from sp_data.judge.stage import Question, Verdict, judge_folder, score, second_opinion

CROWD = [kid for kid in kids(60, 21) if kid.coat != kid.hat][:24]


def verdicts(pictures_of: list[Kid]) -> list[Verdict]:
    """The verdicts where CROWD was asked for and these kids were drawn."""
    pictures = [draw(kid, 64) for kid in pictures_of]
    opinions = second_opinion(load_clip("demo", 128), pictures)
    questions = [Question(caption(kid), kid.coat, kid.hat, seen=True) for kid in CROWD]
    rows = zip(questions, pictures, opinions, strict=True)
    return [Verdict(question, read(picture), opinion, "") for question, picture, opinion in rows]


def test_pictures_of_what_was_asked_for_are_all_right_to_both_judges() -> None:
    assert score(verdicts(CROWD)) == {"n": 24, "coat": 1.0, "hat": 1.0, "clip_coat": 1.0, "clip_hat": 1.0}


def test_pictures_of_somebody_else_are_right_by_chance_at_most() -> None:
    scores = score(verdicts([*CROWD[1:], CROWD[0]]))
    assert max(scores[part] for part in ("coat", "hat", "clip_coat", "clip_hat")) <= 0.35


def test_coat_and_hat_are_not_exchanged() -> None:
    question = Question("", "red", "blue", seen=True)
    swapped = Verdict(question, CoatAndHat("blue", "red"), CoatAndHat("red", "red"), "")
    assert score([swapped]) == {"n": 1, "coat": 0.0, "hat": 0.0, "clip_coat": 1.0, "clip_hat": 0.0}
    missing = Verdict(question, CoatAndHat("red", None), CoatAndHat("green", "blue"), "")
    assert score([swapped, missing]) == {"n": 2, "coat": 0.5, "hat": 0.0, "clip_coat": 0.5, "clip_hat": 0.5}
    assert score([])["n"] == 0


def test_a_folder_of_pictures_is_judged_by_their_own_prompts(tmp_path: Path) -> None:
    def save(kid: Kid, prompt: str, name: str) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("sp-data", f'{{"prompt": "{prompt}", "decoder": []}}')
        Image.Image.save(draw(kid, 64), tmp_path / name, "PNG", pnginfo=info)

    kid = CROWD[0]
    save(kid, caption(kid), "right.png")
    save(kid, "a kid in a red coat and a teal cap", "of-a-pair-nobody-drew.png")
    save(kid, "a samurai", "left-out.png")
    scores = judge_folder(tmp_path)
    assert (scores["all"]["n"], scores["seen"]["n"], scores["unseen"]["n"]) == (2, 1, 1)
    assert (scores["seen"]["coat"], scores["seen"]["hat"]) == (1.0, 1.0)
    assert scores["unseen"]["hat"] == float(kid.hat == "teal")
