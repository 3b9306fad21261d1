"""A person's pictures: read as they look, or refused in a sentence; files of each kind are made here."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sp_data.errors import UsageError
from sp_data.generation.inputs import MAX_BYTES, InputPicture, picture_of, read_mask, read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def two_colours(left: tuple[int, ...] = RED, right: tuple[int, ...] = BLUE, mode: str = "RGB") -> Image.Image:
    """32 x 16, of two squares."""
    image = Image.new(mode, (32, 16), left)
    image.paste(right, (16, 0, 32, 16))
    return image


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises that many pixels; its data hold one row of them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 3 * width)) + chunk(b"IEND", b"")


def turned() -> bytes:
    """A JPEG of red above blue, which lies on its side in the file: its EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(two_colours(), "JPEG", quality=95, exif=exif)


def with_palette() -> bytes:
    """Red, and a transparent entry."""
    image = Image.new("P", (32, 16), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (16, 0, 32, 16))
    return file_of(image, transparency=1)


READABLE = {
    "RGB": (file_of(two_colours()), RED, BLUE),
    "animated GIF": (
        file_of(two_colours(), "GIF", save_all=True, append_images=[two_colours(GREEN, GREEN)], duration=100),
        RED,
        BLUE,
    ),
    "CMYK JPEG": (file_of(two_colours().convert("CMYK"), "JPEG", quality=95), RED, BLUE),
    "16-bit grey": (
        file_of(Image.fromarray(np.repeat(np.array([[0x4000, 0xC000]], np.uint16), 16, 1).repeat(16, 0))),
        (64, 64, 64),
        (192, 192, 192),
    ),
    "palette with transparency": (with_palette(), RED, WHITE),
    "half transparent": (file_of(two_colours((0, 0, 0, 128), (*BLUE, 255), "RGBA")), (127, 127, 127), BLUE),
    "one bit": (file_of(two_colours((0,), (255,), "L").convert("1")), (0, 0, 0), WHITE),
    "WebP": (file_of(two_colours(), "WEBP", lossless=True), RED, BLUE),
}


@pytest.mark.parametrize(("data", "left", "right"), READABLE.values(), ids=READABLE)
def test_a_picture_is_read_as_it_looks(data: bytes, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    picture = picture_of(data, "kid.png")
    assert (picture.image.mode, picture.image.size) == ("RGB", (32, 16))
    seen = np.asarray(picture.image).astype(int)
    assert np.abs(seen[8, 4] - left).max() <= 3
    assert np.abs(seen[8, 28] - right).max() <= 3


def test_a_picture_that_lies_on_its_side_is_put_upright(tmp_path: Path) -> None:
    (tmp_path / "turned.jpg").write_bytes(turned())
    for image in (read_picture(tmp_path / "turned.jpg").image, read_mask(tmp_path / "turned.jpg")):
        assert image.size == (16, 32)
        upper, lower = image.getpixel((8, 4)), image.getpixel((8, 28))
        assert np.abs(np.subtract(upper, RED)).max() <= 3
        assert np.abs(np.subtract(lower, BLUE)).max() <= 3


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"kid.png cannot be read as a picture \(not-an-image: an empty file\); give a PNG, JPEG, WebP"),
        (b"<!DOCTYPE html><html><body>404</body></html>", r"\(not-an-image: a web page\); give a PNG, JPEG, WebP"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', r"\(vector: SVG.*\); give a PNG of it"),
        (b"a kid in a red coat", r"not-an-image.*; give a PNG"),
        (file_of(two_colours())[:-40], r"cut-off.*; give another file"),
        (file_of(Image.effect_noise((64, 64), 50), "JPEG")[:900], r"\(cut-off.*; give another file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, r"(cut-off|damaged).*; give another file"),
        (png_of_size(10_000, 5_000), r"too-many-pixels: 10000 x 5000, at most 40,000,000 pixels\); make it smaller"),
        (png_of_size(30_000, 30_000), r"too-many-pixels.*; make it smaller first"),
    ],
    ids=["empty", "HTML", "SVG", "text", "cut PNG", "cut JPEG", "zeros", "50 megapixels", "900 megapixels"],
)
def test_what_is_no_picture_is_refused_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        picture_of(data, "kid.png")
    assert "\n" not in str(caught.value)


def test_a_file_of_many_bytes_a_folder_and_none_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1_000_000)
    for read in (read_picture, read_mask):
        with pytest.raises(UsageError, match=r"large\.png has 51 MB, at most 50 are read"):
            read(tmp_path / "large.png")
        with pytest.raises(UsageError, match="is a folder; give the pictures in it"):
            read(tmp_path)
        with pytest.raises(UsageError, match=r"there is no picture .*none\.png"):
            read(tmp_path / "none.png")
    with pytest.raises(UsageError, match="an upload has 51 MB"):
        picture_of(bytes(MAX_BYTES + 1_000_000), "kid.png", "an upload")


def test_a_file_whose_name_is_not_utf_8_gives_a_name_that_is(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"k\xefd.png")
    path.write_bytes(file_of(two_colours()))
    assert read_picture(path).name == "k?d.png"


def test_the_same_pixels_in_memory_have_the_same_digest_and_no_others() -> None:
    image = two_colours()
    assert InputPicture.of_image(image).sha256 == InputPicture.of_image(image.copy()).sha256
    assert (
        InputPicture.of_image(image).sha256 != InputPicture.of_image(image.transpose(Image.Transpose.ROTATE_180)).sha256
    )
    plain = (Image.new("RGB", size) for size in ((8, 2), (2, 8)))
    assert len({InputPicture.of_image(image).sha256 for image in plain}) == 2, "equal bytes, another shape"


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (7, 5), (1, 9)])
def test_the_models_see_the_square_in_its_middle(size: tuple[int, int]) -> None:
    side = min(size)
    image = Image.new("RGB", size, "red")
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste("blue", (left, top, left + side, top + side))
    square = InputPicture.of_image(image).square(4)
    assert square.shape == (3, 4, 4)
    assert torch.allclose(square, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 4, 4), atol=1e-5)
