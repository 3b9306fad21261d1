"""The normal form: what comes out is compared, pixel by pixel, with what it should look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sp_data.dataset.curate.decoding import Refused
from sp_data.dataset.curate.pictures import read_picture
from sp_data.recipe import Curate

LIMITS = Curate.model_validate({"min_side_px": 4})
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def two_halves(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = BLUE) -> Image.Image:
    """8 x 6, one colour left, one right."""
    image = Image.new("RGB", (8, 6), left)
    image.paste(right, (4, 0, 8, 6))
    return image


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_picture(path, LIMITS).image)


def test_an_ordinary_png_is_used_as_it_is(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", LIMITS)
    assert picture.file_is_normal
    assert picture.image.mode == "RGB"
    assert (len(picture.phash), len(picture.thumb)) == (32, 192)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(two_halves()))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = two_halves().convert("RGBA")
    image.putalpha(Image.new("L", (8, 6), 0))
    image.paste((255, 0, 0, 128), (0, 0, 4, 6))
    image.save(tmp_path / "a.png")
    rgb = pixels(tmp_path / "a.png")
    assert rgb[0, 0].tolist() == [255, 127, 127]
    assert rgb[0, 7].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_laid_over_white(tmp_path: Path) -> None:
    image = two_halves().quantize(2)
    corner = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=corner)
    rgb = pixels(tmp_path / "a.png")
    assert rgb[0, 0].tolist() == list(WHITE)
    assert rgb[0, 7].tolist() == list(BLUE)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    two_halves().save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    picture = read_picture(tmp_path / "a.jpg", LIMITS)
    assert not picture.file_is_normal
    assert picture.image.size == (6, 8)
    assert np.asarray(picture.image)[0, 3].argmax() == 0, "red on top"
    assert np.asarray(picture.image)[7, 3].argmax() == 2, "blue at the bottom"


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.full((6, 8), 0x8000, np.uint16)
    grey[:, 4:] = 0xFFFF
    Image.fromarray(grey).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", LIMITS)
    assert not picture.file_is_normal
    assert np.asarray(picture.image)[0, 0].tolist() == [128, 128, 128]
    assert np.asarray(picture.image)[0, 7].tolist() == [255, 255, 255]


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    for name in ("a.gif", "a.png", "a.webp"):
        frames = [two_halves(), two_halves(BLUE, RED)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        picture = read_picture(tmp_path / name, LIMITS)
        assert not picture.file_is_normal, f"{name}: img2dataset reads animations in its own way"
        assert np.asarray(picture.image)[0, 0].tolist() == list(RED), name


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    two_halves(WHITE, (0, 0, 0)).convert(mode).save(tmp_path / name)
    picture = read_picture(tmp_path / name, LIMITS)
    assert picture.image.mode == "RGB"
    assert not picture.file_is_normal
    assert abs(int(np.asarray(picture.image)[0, 0, 1]) - 255) <= 1
    assert int(np.asarray(picture.image)[0, 7, 1]) <= 1


def test_jpeg_bytes_under_a_png_name_are_a_jpeg(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png", "JPEG", quality=100, subsampling=0)
    assert pixels(tmp_path / "a.png")[0, 0].argmax() == 0


def cut(path: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>Just a moment...</title>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def tiny(path: Path) -> None:
    Image.new("RGB", (3, 40)).save(path)


def long(path: Path) -> None:
    Image.new("RGB", (41, 10)).save(path)


def huge(path: Path) -> None:
    Image.new("1", (10_000, 8_000)).save(path)


def bomb(path: Path) -> None:
    Image.new("1", (30_000, 20_000)).save(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (cut, "cut-off"),
        (html, "not-an-image"),
        (empty, "not-an-image"),
        (tiny, "too-small"),
        (long, "too-long"),
        (huge, "too-many-pixels"),
        (bomb, "too-many-pixels"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(Refused) as refused:
        read_picture(tmp_path / "a.png", LIMITS)
    assert refused.value.reason == reason
