"""Coat and hat can be read from a drawing, and a kid is drawn alike every time."""

import hashlib
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sp_data.demo.kids.artist import COLOURS, GROUND, Kid, draw, kids
from sp_data.demo.kids.kid import HAT_KINDS, PLACES
from sp_data.demo.kids.scenery import Point, scene

CROWD = kids(300, 4)


def coat_point(kid: Kid) -> Point:
    """A point inside the flat part of the coat, beside its buttons: (x, y) as fractions of the picture."""
    return _point(kid, 0.09, 0.25)


def hat_point(kid: Kid) -> Point:
    """A point inside the flat part of the hat, above its band: (x, y) as fractions of the picture."""
    return _point(kid, 0.03, 0.79)


def _point(kid: Kid, u: float, v: float) -> Point:
    return kid.x + u * kid.scale, GROUND - v * kid.scale


def nearest_colour(picture: Image.Image, point: tuple[float, float]) -> str:
    x, y = point
    pixel = picture.getpixel((int(x * picture.width), int(y * picture.height)))
    assert isinstance(pixel, tuple)
    return min(COLOURS, key=lambda name: math.dist(pixel, COLOURS[name]))


@pytest.mark.parametrize("size_px", [32, 256])
def test_coat_and_hat_can_be_read_from_the_picture(size_px: int) -> None:
    wrong = []
    for kid in CROWD:
        picture = draw(kid, size_px)
        assert picture.mode == "RGB"
        assert picture.size == (size_px, size_px)
        read = nearest_colour(picture, coat_point(kid)), nearest_colour(picture, hat_point(kid))
        if read != (kid.coat, kid.hat):
            wrong.append((kid, read))
    assert not wrong


def test_the_coat_is_a_large_flat_area() -> None:
    for kid in CROWD[:30]:
        pixels = np.asarray(draw(replace(kid, hat=kid.coat)), int)
        share = (np.abs(pixels - COLOURS[kid.coat]).sum(2) < 12).mean()
        assert share > 0.12, (share, kid)


@pytest.mark.parametrize("place", PLACES)
def test_no_scenery_looks_like_a_coat_or_a_hat(place: str) -> None:
    pixels = np.asarray(scene(place, 768).reduce(3), float).reshape(-1, 3)
    for name, colour in COLOURS.items():
        distance = np.linalg.norm(pixels - colour, axis=1).min()
        assert distance > 60, (name, distance)


@pytest.mark.parametrize("hat_kind", HAT_KINDS)
def test_the_kid_fits_into_the_picture(hat_kind: str) -> None:
    """However tall the hat, the outermost pixels are scenery."""
    for x in (0.42, 0.58):
        kid = replace(CROWD[0], hat_kind=hat_kind, x=x, scale=0.88, place="lake")
        ours, empty = np.asarray(draw(kid), int), np.asarray(scene("lake", 768).reduce(3), int)
        assert (ours == empty)[:3].all()
        assert (ours == empty)[:, :3].all()
        assert (ours == empty)[:, -3:].all()


def test_equal_kids_give_equal_bytes_in_another_process() -> None:
    script = (
        "import hashlib; from sp_data.demo.kids.artist import draw, kids;"
        "print(hashlib.sha256(b''.join(draw(kid).tobytes() for kid in kids(8, 3))).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(b"".join(draw(kid).tobytes() for kid in kids(8, 3))).hexdigest()


def test_drawing_one_kid_leaves_the_scenery_for_the_next() -> None:
    first, second = CROWD[0], replace(CROWD[1], place=CROWD[0].place)
    before = draw(second).tobytes()
    draw(first)
    assert draw(second).tobytes() == before


def test_every_attribute_shows() -> None:
    kid: Kid = replace(CROWD[0], coat="red", hat="red", hat_kind="cap", hair="black", skin="light", place="lake")
    changes = {"coat": "blue", "hat": "lime", "hat_kind": "beanie", "hair": "blond", "skin": "dark", "place": "hill"}
    for attribute, value in changes.items():
        changed = np.asarray(draw(replace(kid, **{attribute: value})), int) - np.asarray(draw(kid), int)
        assert (np.abs(changed).sum(2) > 40).mean() > 0.005, attribute
