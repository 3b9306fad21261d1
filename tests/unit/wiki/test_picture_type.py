"""The type of a downloaded file: one that Pillow knows, or none; never an exception."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fuzzing import few_and_many, fuzz, mutated
from PIL import Image

from sp_data.wiki.picture_type import PictureType, is_cut, picture_type

FORMS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "ICO", "JPEG2000", "PPM", "TGA", "PCX", "DDS", "SGI")


def saved(form: str, frames: int = 1, side: int = 32) -> bytes:
    out = io.BytesIO()
    pictures = [Image.effect_noise((side, side), 60 + number).convert("RGB") for number in range(frames)]
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(out, form, **more)
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "frames", "mime"),
    [
        ("PNG", 1, "image/png"),
        ("PNG", 2, "image/png"),
        ("JPEG", 1, "image/jpeg"),
        ("MPO", 2, "image/jpeg"),
        ("GIF", 2, "image/gif"),
        ("WEBP", 2, "image/webp"),
        ("TIFF", 1, "image/tiff"),
        ("BMP", 1, "image/bmp"),
        ("ICO", 1, "image/x-icon"),
        ("JPEG2000", 1, "image/jp2"),
        ("MSP", 1, "image/x-msp"),
    ],
)
def test_a_picture_is_what_everybody_calls_it(tmp_path: Path, form, frames, mime):
    picture = Image.new("1", (32, 32)) if form == "MSP" else None
    if picture is not None:
        picture.save(tmp_path / "kid", form)
    else:
        (tmp_path / "kid").write_bytes(saved(form, frames))
    assert picture_type(tmp_path / "kid") == PictureType(mime, 32, 32)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF____"])
def test_what_is_no_picture_has_no_type(tmp_path: Path, body):
    (tmp_path / "kid").write_bytes(body)
    assert picture_type(tmp_path / "kid") is None


@pytest.mark.parametrize(("form", "frames"), [("PNG", 1), ("JPEG", 1), ("MPO", 2), ("GIF", 1), ("WEBP", 1)])
def test_a_picture_without_its_end_is_cut_and_one_with_more_behind_it_is_not(tmp_path: Path, form, frames):
    body = saved(form, frames, side=128)
    file = tmp_path / "kid"
    file.write_bytes(body)
    kind = picture_type(file)
    assert kind is not None and not is_cut(file, kind.mime)
    file.write_bytes(body + b"\0\0\r\n")
    assert not is_cut(file, kind.mime)
    if form == "JPEG":
        file.write_bytes(body + b"a camera's notes")
        assert not is_cut(file, kind.mime)
    for share in (0.3, 0.6, 0.9) if frames == 1 else (0.3,):
        file.write_bytes(body[: int(len(body) * share)])
        assert is_cut(file, kind.mime), share


@few_and_many
def test_any_file_has_a_type_or_none(tmp_path: Path, num_inputs):
    seeds = [saved(form) for form in FORMS] + [saved("MPO", 2), saved("PNG", 2), saved("GIF", 2), saved("WEBP", 2)]
    tokens = [
        b"IHDR",
        b"acTL",
        b"\xff\xe1",
        b"\xff\xe2MPF\0",
        b"Exif\0\0",
        b"\xff\xff\xff\xff",
        b"VP8X",
        b"II*\0",
        b"<svg",
    ]
    file = tmp_path / "kid"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        kind = picture_type(file)
        if kind is not None:
            assert "/" in kind.mime and kind.mime.isprintable()
            is_cut(file, kind.mime)

    fuzz(mutated(seeds, tokens), read, num_inputs)
