"""A picture and its mask: the white part comes from what was drawn, the black part stays byte for byte."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sp_data.errors import UsageError
from sp_data.generation.inputs import InputPicture, picture_of, repainting
from sp_data.training.decoder import to_pictures

Pixels = npt.NDArray[np.uint8]
GREEN = (0, 255, 0)
DRAWN = Image.new("RGB", (16, 16), GREEN)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def white_part(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image)


def jpeg_decoded() -> InputPicture:
    out = io.BytesIO()
    noise(63, 48).save(out, "JPEG", quality=80)
    return picture_of(out.getvalue(), "kid.jpg")


PICTURES = {
    "square": InputPicture.of_image(noise(64, 64)),
    "odd": InputPicture.of_image(noise(61, 47)),
    "landscape": InputPicture.of_image(noise(90, 40)),
    "portrait": InputPicture.of_image(noise(40, 90)),
    "JPEG": jpeg_decoded(),
    "smaller than the models": InputPicture.of_image(noise(9, 7)),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_what_is_black_stays_byte_for_byte_and_what_is_white_is_drawn(picture: InputPicture) -> None:
    width, height = picture.image.size
    mask = white_part((width, height), (2, height // 3, width // 2, height - 1))
    finished = repainting(picture, mask).finished(DRAWN)
    assert finished.size == picture.image.size
    is_white = pixels(mask) > 0
    assert (pixels(finished)[is_white] == GREEN).all()
    assert np.array_equal(pixels(finished)[~is_white], pixels(picture.image)[~is_white])


def test_a_soft_edge_goes_over_from_the_one_to_the_other() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(256, 0))
    before = Image.new("RGB", (256, 256), (200, 10, 90))
    finished = pixels(repainting(InputPicture.of_image(before), ramp).finished(DRAWN)).astype(int)
    assert (finished == finished[:1]).all()
    assert tuple(finished[0, 0]) == (200, 10, 90)
    assert tuple(finished[0, 255]) == GREEN
    steps = np.diff(finished[0], axis=0)
    assert (steps[:, 0] <= 0).all()
    assert (steps[:, 1] >= 0).all()
    assert (steps[:, 2] <= 0).all()
    assert np.abs(finished[0, 128] - (np.array((200, 10, 90)) + GREEN) / 2).max() <= 2


def in_mode(mode: str) -> Image.Image:
    """A mask of 12 x 8 whose left half is white, the right one black, or transparent where the mode can be."""
    grey = white_part((12, 8), (0, 0, 6, 8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    if mode == "F":
        return grey.convert("F")
    if mode in ("LA", "RGBA", "PA"):
        white = Image.new("LA", grey.size, (255, 255))
        white.putalpha(grey)
        return white if mode == "LA" else white.convert("RGBA").convert(mode)
    if mode == "P with a transparent entry":
        palette = Image.new("P", grey.size, 1)
        palette.putpalette([255] * 6)
        palette.paste(0, (0, 0, 6, 8))
        palette.info["transparency"] = 1
        return palette
    return grey.convert(mode)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "P with a transparent entry", "PA", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV"],
)
def test_a_mask_may_be_of_any_mode_and_transparent_is_black(mode: str) -> None:
    mask = in_mode(mode)
    assert mask.mode == mode.split()[0]
    painted = repainting(InputPicture.of_image(noise(12, 8)), mask)
    assert painted.mask.shape == (8, 12)
    assert (painted.mask[:, :6] == 1).all()
    assert (painted.mask[:, 6:] == 0).all()


def test_greys_of_16_bits_are_the_greys_of_8() -> None:
    greys = np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16).repeat(4, 0)
    painted = repainting(InputPicture.of_image(noise(4, 4)), Image.fromarray(greys))
    assert np.abs(painted.mask[0] - [0, 0.25, 0.5, 1]).max() < 0.01


@pytest.mark.parametrize("factor", [0.5, 2, 3.5])
def test_a_mask_of_another_size_is_brought_to_the_pictures(factor: float) -> None:
    picture = InputPicture.of_image(noise(80, 60))
    size = (round(80 * factor), round(60 * factor))
    mask = white_part(size, (size[0] // 2, 0, size[0], size[1]))
    painted = repainting(picture, mask)
    assert painted.mask.shape == (60, 80)
    assert (painted.mask[:, 42:] == 1).all()
    assert (painted.mask[:, :38] == 0).all()
    assert (repainting(picture, Image.new("L", (81, 60), 255)).mask == 1).all(), "one pixel is no other proportion"


def test_masks_that_cannot_be_meant_are_refused_in_a_sentence() -> None:
    picture = InputPicture.of_image(noise(80, 60), "kid.png")
    with pytest.raises(UsageError, match=r"m\.png is 60 x 80, kid\.png 80 x 60: expected equal proportions"):
        repainting(picture, Image.new("L", (60, 80), 255), "m.png")
    with pytest.raises(UsageError, match=r"m\.png is black all over: paint white what is to be repainted"):
        repainting(picture, Image.new("L", (80, 60), 0), "m.png")
    with pytest.raises(UsageError, match="black all over"):
        repainting(picture, Image.new("RGBA", (80, 60), (255, 255, 255, 0)))
    strip = InputPicture.of_image(Image.new("RGB", (7_000, 10)))
    with pytest.raises(UsageError, match=r"is 7,000 px long: the models draw squares, .* make the picture smaller"):
        repainting(strip, Image.new("L", (7_000, 10), 255))
    assert repainting(strip, white_part((7_000, 10), (0, 0, 9, 9))).box == (0, 0, 10, 10)


def test_a_mask_that_is_white_all_over_draws_all_of_it() -> None:
    for picture in PICTURES.values():
        finished = repainting(picture, Image.new("L", picture.image.size, 255)).finished(DRAWN)
        assert finished.size == picture.image.size
        assert (pixels(finished) == GREEN).all()


@pytest.mark.parametrize(
    ("size", "painted", "box"),
    [
        ((90, 40), (10, 5, 20, 15), (0, 0, 40, 40)),
        ((90, 40), (50, 5, 60, 15), (35, 0, 75, 40)),
        ((90, 40), (80, 5, 90, 15), (50, 0, 90, 40)),
        ((40, 90), (5, 80, 15, 85), (0, 50, 40, 90)),
        ((90, 40), (10, 5, 80, 15), (10, -15, 80, 55)),
        ((40, 90), (5, 0, 15, 90), (-25, 0, 65, 90)),
    ],
    ids=["near the left", "middle", "right", "bottom", "longer than high", "higher than wide"],
)
def test_the_models_see_the_square_around_what_is_painted(
    size: tuple[int, int], painted: tuple[int, int, int, int], box: tuple[int, int, int, int]
) -> None:
    assert repainting(InputPicture.of_image(noise(*size)), white_part(size, painted)).box == box


def test_beyond_the_edge_the_pixels_of_the_edge_are_repeated() -> None:
    size = (8, 4)
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 2, 8, 4))
    seen, keep = repainting(InputPicture.of_image(image), white_part(size, (0, 1, 8, 2))).seen(8)
    # Two rows above and two below are not of the picture.
    assert torch.equal(seen[2, :, 0], torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]))
    assert keep[:, 0].tolist() == [True, True, True, False, True, True, True, True]


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_what_the_models_see_is_put_back_where_it_was(
    width: int, height: int, part: tuple[float, float, float, float]
) -> None:
    left, top = int(part[0] * width), int(part[1] * height)
    right = left + 1 + int(part[2] * (width - left - 1))
    bottom = top + 1 + int(part[3] * (height - top - 1))
    picture = InputPicture.of_image(noise(width, height))
    painted = repainting(picture, white_part((width, height), (left, top, right, bottom)))
    side = painted.box[2] - painted.box[0]
    assert side == painted.box[3] - painted.box[1] >= min(width, height)
    assert painted.box[0] <= left < right <= painted.box[2]
    assert painted.box[1] <= top < bottom <= painted.box[3]
    seen, keep = painted.seen(side)
    within = keep[max(0, -painted.box[1]) :, max(0, -painted.box[0]) :][:height, :width]
    assert int((~within).sum()) == (right - left) * (bottom - top)
    (again,) = to_pictures(seen[None])
    assert np.array_equal(pixels(painted.finished(again)), pixels(picture.image))


def test_a_single_white_pixel_is_not_lost_to_a_small_model() -> None:
    size = (301, 301)
    _, keep = repainting(InputPicture.of_image(noise(*size)), white_part(size, (200, 100, 201, 101))).seen(16)
    assert (~keep).nonzero().tolist() == [[5, 10]]
    _, keep = repainting(InputPicture.of_image(noise(4, 4)), white_part((4, 4), (1, 0, 2, 1))).seen(8)
    assert (~keep).nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


def test_a_mask_names_itself_by_its_pixels() -> None:
    picture = InputPicture.of_image(noise(8, 8))
    one, other = (repainting(picture, white_part((8, 8), (0, 0, width, 4))) for width in (3, 4))
    assert one.origin != other.origin
    assert one.origin == repainting(picture, white_part((8, 8), (0, 0, 3, 4)).convert("RGB")).origin
