"""Draws the kids of kid.py as layers of cut paper, with Pillow: 5 ms a picture, equal arguments give equal bytes.

Every layer is a polygon, cut with a few straight snips, that throws a hard shadow on the layers below. The figure is
laid out in its own units: u to the right from its middle, v up from its feet; the tallest hat ends at v = 1.
Coat and hat are the only large areas in one of COLOURS; scenery, clothes and faces keep away from those colours.
"""

import random
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from sp_data.demo.kids.kid import COLOURS, HAIR, HELD_OUT, RGB, SKIN, Kid, caption, kids
from sp_data.demo.kids.scenery import SHADOW, Point, oval, scene

__all__ = ["COLOURS", "HELD_OUT", "Kid", "caption", "draw", "kids"]

OVERSAMPLING = 3
GROUND = 0.93  # height of the feet, as a fraction of the picture's height from its top
CHARCOAL: RGB = (58, 56, 66)
SOLE: RGB = (40, 38, 46)
CREAM: RGB = (250, 246, 236)
PUPIL: RGB = (26, 24, 30)
LIP: RGB = (74, 30, 32)


def draw(kid: Kid, size_px: int = 256) -> Image.Image:
    """A picture of `kid`: RGB, `size_px` square."""
    canvas_px = size_px * OVERSAMPLING
    picture = scene(kid.place, canvas_px).copy()
    _Figure(kid, picture).cut_out()
    return picture.reduce(OVERSAMPLING)


def _shade(colour: RGB, factor: float) -> RGB:
    red, green, blue = colour
    return round(red * factor), round(green * factor), round(blue * factor)


class _Figure:
    """The kid's layers, from the shoes to the hat, drawn on `picture` one by one."""

    def __init__(self, kid: Kid, picture: Image.Image) -> None:
        self.kid = kid
        self.size_px = picture.width
        # An opaque brush is twice as fast as one that blends, and most paper is opaque.
        self.brush, self.shade = ImageDraw.Draw(picture), ImageDraw.Draw(picture, "RGBA")
        # Cuts are a little uneven. The kid's number alone seeds them, so that a kid looks the same in every picture.
        self.snips = random.Random(kid.number)

    def cut_out(self) -> None:
        self.legs()
        self.coat(COLOURS[self.kid.coat])
        self.head(SKIN[self.kid.skin], HAIR[self.kid.hair])
        hats = {"beanie": self.beanie, "bobble hat": self.bobble_hat, "cap": self.cap, "top hat": self.top_hat}
        hats[self.kid.hat_kind](COLOURS[self.kid.hat])

    def piece(self, outline: Iterable[Point], colour: RGB, drop: float = 0.012, wobble: float = 0.004) -> None:
        """Lays down a piece of paper, whose shadow falls `drop` to the right and below."""
        random_ = self.snips.random
        cut = [(u + wobble * (random_() - 0.5), v + wobble * (random_() - 0.5)) for u, v in outline]
        if drop:
            self.shade.polygon(self.pixels(cut, drop), fill=SHADOW)
        self.brush.polygon(self.pixels(cut, 0), fill=colour)

    def pixels(self, outline: Sequence[Point], drop: float) -> list[Point]:
        unit_px = self.kid.scale * self.size_px
        left_px, ground_px = (self.kid.x + drop * 0.8) * self.size_px, (GROUND + drop) * self.size_px
        return [(left_px + u * unit_px, ground_px - v * unit_px) for u, v in outline]

    def legs(self) -> None:
        for side in (-1, 1):
            self.piece(oval(side * 0.105, 0.018, 0.11, 0.05, 0, 180), SOLE)
        self.piece([(-0.18, 0.03), (-0.19, 0.14), (0.19, 0.14), (0.18, 0.03), (0.01, 0.03), (0, 0.07)], CHARCOAL)

    def coat(self, colour: RGB) -> None:
        for side in (-1, 1):
            self.piece(oval(side * 0.285, 0.165, 0.05, 0.05), CHARCOAL)
            arm = [(0.12, 0.42), (0.2, 0.4), (0.255, 0.33), (0.325, 0.2), (0.25, 0.155), (0.16, 0.3)]
            self.piece([(side * u, v) for u, v in arm], colour, drop=0.006)
        body = [(0.1, 0.43), (0.17, 0.405), (0.2, 0.33), (0.235, 0.12), (0.225, 0.095), (0.12, 0.085)]
        self.piece([*body, *((-u, v) for u, v in reversed(body))], colour)
        seam = _shade(colour, 0.72)
        self.piece([(-0.006, 0.42), (0.006, 0.42), (0.006, 0.088), (-0.006, 0.088)], seam, drop=0, wobble=0)
        for v in (0.3, 0.225, 0.15):
            self.piece(oval(0.032, v, 0.013, 0.013), seam, drop=0)

    def head(self, skin: RGB, hair: RGB) -> None:
        self.piece(oval(0, 0.575, 0.272, 0.198), hair)
        self.piece(oval(0, 0.54, 0.224, 0.187), skin, drop=0.006)
        # The fringe: a cap of hair with a zigzag edge.
        teeth = [(0.2 - 0.05 * tooth, 0.615 if tooth % 2 else 0.65) for tooth in range(9)]
        self.piece([*oval(0, 0.6, 0.225, 0.16, 20, 160), *reversed(teeth)], hair, drop=0.006)
        gaze = 0.028 * self.kid.gaze
        for side in (-1, 1):
            self.piece(oval(side * 0.078, 0.55, 0.079, 0.082), CREAM, drop=0.004)
        for side in (-1, 1):
            self.piece(oval(side * 0.062 + gaze, 0.545, 0.017, 0.021), PUPIL, drop=0)
        self.mouth()

    def mouth(self) -> None:
        v = 0.42
        match self.kid.mouth:
            case "smile":
                arc = [*oval(0, v + 0.02, 0.06, 0.035, 180, 360), *reversed(oval(0, v + 0.02, 0.05, 0.024, 180, 360))]
                self.piece(arc, LIP, drop=0, wobble=0)
            case "grin":
                self.piece(oval(0, v + 0.02, 0.062, 0.046, 180, 360), LIP, drop=0)
                self.piece(
                    [(-0.048, v + 0.02), (-0.044, v + 0.006), (0.044, v + 0.006), (0.048, v + 0.02)], CREAM, 0, 0
                )
            case "flat":
                self.piece([(-0.045, v + 0.005), (0.045, v + 0.01), (0.045, v), (-0.045, v - 0.005)], LIP, drop=0)
            case "gasp":
                self.piece(oval(0, v, 0.022, 0.026), LIP, drop=0)

    def dome(self, colour: RGB) -> None:
        self.piece(oval(0, 0.655, 0.247, 0.215, 0, 180), colour)

    def beanie(self, colour: RGB) -> None:
        self.dome(colour)
        self.piece([(-0.255, 0.635), (-0.255, 0.705), (0.255, 0.705), (0.255, 0.635)], _shade(colour, 0.8), drop=0.008)

    def bobble_hat(self, colour: RGB) -> None:
        self.piece(oval(0, 0.905, 0.068, 0.068), CREAM)
        self.dome(colour)
        zigzag = [(-0.25 + 0.0625 * tooth, 0.705 if tooth % 2 else 0.67) for tooth in range(9)]
        self.piece([(-0.25, 0.635), *zigzag, (0.25, 0.635)], CREAM, drop=0.006)

    def cap(self, colour: RGB) -> None:
        self.piece(oval(0, 0.655, 0.24, 0.195, 0, 180), colour)
        self.piece(oval(0, 0.852, 0.024, 0.016), _shade(colour, 0.8), drop=0)
        toward = 1 if self.kid.gaze >= 0 else -1
        peak = [(-0.1, 0.69), (0.06, 0.715), (0.25, 0.7), (0.37, 0.655), (0.36, 0.635), (0.1, 0.64)]
        self.piece([(toward * u, v) for u, v in peak], _shade(colour, 0.8), drop=0.008)

    def top_hat(self, colour: RGB) -> None:
        self.piece([(-0.165, 0.68), (-0.185, 0.985), (0.185, 0.985), (0.165, 0.68)], colour)
        self.piece([(-0.168, 0.69), (-0.171, 0.74), (0.171, 0.74), (0.168, 0.69)], CHARCOAL, drop=0)
        self.piece([(-0.29, 0.65), (-0.285, 0.69), (0.285, 0.69), (0.29, 0.65)], colour)
