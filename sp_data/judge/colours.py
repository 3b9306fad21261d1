"""The colours of coat and hat in a picture of a paper-cutout kid, measured from its pixels.

Coat and hat are the only large areas in one of COLOURS, and a head is between them. So each pixel gets the nearest
paint, and the picture is cut at the row where most pixels agree: above it with the hat's colour, below it with the
coat's. Nothing is assumed about the kid's position or size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data.demo.kids.artist import CHARCOAL, CREAM
from sp_data.demo.kids.kid import COLOURS, HAIR, HAT_KINDS, SKIN
from sp_data.demo.kids.scenery import SKY

NAMES = tuple(COLOURS)
CHANCE = 1 / len(NAMES)
MOST_DISTANCE = 75.0
"""In 8-bit RGB: no other paint of the artist is nearer to one of COLOURS."""
LEAST_SHARE = 0.006
"""Share of the picture's pixels: less than any hat has, more than speckles have."""
LEAST_INK = 0.04
"""Share of a row's pixels: a row with less of every colour is a gap."""
NEARLY = 0.98
"""A cut where this share of the best cut's pixels agrees is as good as the best."""


@dataclass(frozen=True, slots=True)
class CoatAndHat:
    """The colours of coat and hat; None if no area of one colour is large enough."""

    coat: str | None
    hat: str | None


def read(picture: Image.Image) -> CoatAndHat:
    """The colours of coat and hat in a picture of any size."""
    # (height, colours): how many pixels of each row have a colour; then of all rows above a cut, and below it.
    rows = _paints(np.asarray(picture.convert("RGB"))).sum(axis=1)
    above = np.concatenate([np.zeros((1, len(NAMES)), int), rows.cumsum(axis=0)])[:-1]
    below = rows.sum(axis=0) - above
    least = LEAST_SHARE * picture.width * picture.height
    agree = above.max(axis=1) + below.max(axis=1)
    agree[(above.max(axis=1) < least) | (below.max(axis=1) < 2 * least)] = 0
    # With a coat and a hat of one colour, every cut agrees. Then the cut is at the head, the longest gap.
    gap = rows.max(axis=1) <= LEAST_INK * picture.width
    start, length = _longest_run(gap & (agree > 0) & (agree >= NEARLY * agree.max()))
    cut = start + length // 2 if length else int(agree.argmax())
    coat, hat = _largest(below[cut], least), _largest(above[cut], least)
    # One area of one colour without a head in it is a coat, without a hat.
    return CoatAndHat(coat, None if hat == coat and not length else hat)


def _paints(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """`(height, width, 8)`: whether a pixel is painted in each of COLOURS."""
    colours, others = _palette()
    flat = pixels.reshape(-1, 1, 3).astype(np.float32)
    distance = np.linalg.norm(flat - colours, axis=2)
    elsewhere = np.linalg.norm(flat - others, axis=2).min(axis=1, keepdims=True)
    nearest = distance == distance.min(axis=1, keepdims=True)
    painted = nearest & (distance < MOST_DISTANCE) & (distance < elsewhere)
    paints: npt.NDArray[np.bool_] = painted.reshape(*pixels.shape[:2], len(NAMES))
    return paints


@cache
def _palette() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    others = [*HAIR.values(), *SKIN.values(), *SKY.values(), CHARCOAL, CREAM]
    return np.array(list(COLOURS.values()), np.float32), np.array(others, np.float32)


def _longest_run(flags: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Start and length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    if not len(edges):
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest] - starts[longest])


def _largest(counts: npt.NDArray[np.int64], least: float) -> str | None:
    return NAMES[int(counts.argmax())] if counts.max() >= least else None


def colours_of_prompt(prompt: str) -> CoatAndHat:
    """The colours that a prompt asks for: 'a kid in a red coat and a blue cap' -> coat red, hat blue."""
    colour = "|".join(NAMES)
    coat = re.search(rf"\b({colour}) coat\b", prompt)
    hat = re.search(rf"\b({colour}) (?:{'|'.join(HAT_KINDS)}|hat)\b", prompt)
    return CoatAndHat(coat=coat[1] if coat else None, hat=hat[1] if hat else None)
