"""A picture says how it was made, in its PNG and in its name; a PNG that says something else is no reason to fail."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sp_data.errors import CorruptFile
from sp_data.generation.picture import CHUNK, SLUG_BYTES, SLUG_LENGTH, GeneratedPicture, read_origin, slug

ORIGIN: dict[str, Any] = {
    "kind": "dream",
    "prompt": "ein Füchslein — 孩子 | “quoted”\nand a\tline\0",
    "seed": 2**53,
    "sampler": "dpm++",
    "steps": [12, 8],
    "cond_scale": [2.5, 1.0],
    "decoder": [{"run": "decoder-1f0c55ab", "step": 800, "weights": "9d" * 32}],
}


def made(**changes: Any) -> GeneratedPicture:
    return GeneratedPicture(Image.new("RGB", (4, 4), "red"), {**ORIGIN, **changes}, {"clip": 0.123456})


def png(*texts: tuple[str, str], compressed: bool = False) -> bytes:
    info, out = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, text in texts:
        info.add_itxt(name, text, zip=compressed)
    Image.new("RGB", (4, 4), "red").save(out, "PNG", pnginfo=info)
    return out.getvalue()


def test_the_origin_comes_back_from_the_png_and_the_sidecar() -> None:
    picture = made()
    assert read_origin(picture.png(), "kid.png") == ORIGIN
    assert json.loads(picture.sidecar()) == {**ORIGIN, "scores": {"clip": 0.1235}}
    with Image.open(io.BytesIO(picture.png())) as opened:
        assert np.array_equal(np.asarray(opened), np.asarray(picture.picture))
    assert picture.png() == made().png()
    assert (picture.prompt, picture.seed) == (ORIGIN["prompt"], 2**53)


def test_a_chunk_behind_the_pixels_and_foreign_ones_beside_it_do_not_matter() -> None:
    whole = png(("Comment", "from a camera"), (CHUNK, json.dumps(ORIGIN)), ("parameters", "Steps: 20"))
    assert read_origin(whole, "kid.png") == ORIGIN
    start, end = whole.index(b"iTXt") - 4, whole.index(b"IDAT") - 4
    last = whole.index(b"IEND") - 4
    moved = whole[:start] + whole[end:last] + whole[start:end] + whole[last:]
    assert read_origin(moved, "kid.png") == ORIGIN


HUGE = json.dumps({**ORIGIN, "prompt": "a" * 2_000_000})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (png(), "kid.png does not say how it was made"),
        (png(("parameters", "a kid, Steps: 20")), "kid.png does not say how it was made"),
        (png((CHUNK, "a kid")), "is not JSON"),
        (png((CHUNK, "")), "is not JSON"),
        (png((CHUNK, "[" * 100_000)), "is not JSON"),
        (png((CHUNK, '{"prompt": "a kid", "decoder": ' + "9" * 5_000 + "}")), "is not JSON"),
        (png((CHUNK, '[{"prompt": "a kid"}]')), "does not describe a picture: it has no prompt and decoder"),
        (png((CHUNK, '"a kid"')), "does not describe a picture"),
        (png((CHUNK, '{"prompt": ["a kid"], "decoder": []}')), "does not describe a picture"),
        (png((CHUNK, '{"prompt": "a kid"}')), "does not describe a picture"),
        (png((CHUNK, HUGE)), "is not JSON"),
        (png((CHUNK, HUGE), compressed=True), "is not a PNG that can be read"),
        (png((CHUNK, json.dumps(ORIGIN)))[:-30], "is not a PNG that can be read"),
        (b"", "is not a PNG that can be read"),
        (b"<html></html>", "is not a PNG that can be read"),
    ],
    ids=[
        "no chunk",
        "a foreign chunk",
        "words",
        "nothing",
        "deep",
        "a long number",
        "a list",
        "a string",
        "prompts",
        "no decoder",
        "huge",
        "huge when unpacked",
        "cut",
        "empty",
        "HTML",
    ],
)
def test_a_png_that_says_something_else_is_refused_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(CorruptFile, match=sentence) as caught:
        read_origin(data, "kid.png")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_jpeg_is_no_png() -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "JPEG")
    with pytest.raises(CorruptFile, match="is not a PNG that can be read"):
        read_origin(out.getvalue(), "kid.png")


@given(st.text(max_size=400))
@example("孩" * 80)
@example("../../etc/passwd")
@example(".")
@example("¿")
@example("a kid \udcff in a coat")
@example("İ" * 100)
def test_the_words_of_any_text_are_a_short_part_of_a_files_name(text: str) -> None:
    words = slug(text)
    assert words
    assert len(words) <= SLUG_LENGTH
    assert len(words.encode()) <= SLUG_BYTES
    assert words.isprintable()
    assert not set(words) & set(' /\\\0:*?"<>|.')
    assert not words.startswith("-")


def test_names_can_be_read() -> None:
    assert slug("A kid, in a RED coat!") == "a-kid-in-a-red-coat"
    assert slug("孩" * 80) == "孩" * 40
    assert slug("¿") == "picture"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(0, 2**53))
@example("孩" * 80, 2**53)
def test_a_name_fits_on_any_file_system_and_is_one_origins_own(prompt: str, seed: int) -> None:
    picture = made(prompt=prompt or "a", seed=seed)
    # What is beside it while it is written has 34 bytes more.
    assert len(picture.file_name.encode()) < 200
    assert picture.file_name.endswith(".png")
    assert picture.file_name != made(prompt=prompt or "a", seed=seed, steps=[12, 9]).file_name
    assert f"-seed-{seed}-" in picture.file_name


def test_a_name_of_80_chinese_letters_can_be_written(tmp_path: Path) -> None:
    picture = made(prompt="孩" * 80)
    (tmp_path / picture.file_name).write_bytes(picture.png())
    assert read_origin((tmp_path / picture.file_name).read_bytes(), "it")["prompt"] == "孩" * 80


def test_without_words_a_picture_has_the_name_of_what_it_was_made_from() -> None:
    inputs = [{"name": "My Kid.v2.png", "sha256": "00"}]
    assert made(kind="upscale", prompt="", seed=3, inputs=inputs).file_name.startswith("upscale-my-kid-v2-seed-3-")
    assert made(kind="variation", prompt="", seed=3, inputs=[{"name": "..."}]).file_name.startswith("variation-seed-3-")
