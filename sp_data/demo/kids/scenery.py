"""The places where the kids stand, in greys, creams and pale pastels, so that only coats and hats are colourful.

Coordinates are fractions of the picture, x to the right and y down.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

from PIL import Image, ImageDraw

from sp_data.demo.kids.kid import RGB

Point = tuple[float, float]

SHADOW = (24, 20, 40, 62)
SKY: dict[str, RGB] = {
    "bus stop": (206, 210, 222),
    "lake": (224, 226, 220),
    "school": (214, 220, 226),
    "hill": (232, 222, 210),
}


def oval(u: float, v: float, radius_u: float, radius_v: float, start: float = 0, stop: float = 360) -> list[Point]:
    """The outline of an ellipse, or of the part between two angles (degrees, 90 is up), in steps of 15 degrees."""
    num_snips = max(3, round((stop - start) / 15))
    angles = (math.radians(start + (stop - start) * snip / num_snips) for snip in range(num_snips + 1))
    return [(u + radius_u * math.cos(angle), v + radius_v * math.sin(angle)) for angle in angles]


@lru_cache(maxsize=16)
def scene(place: str, canvas_px: int) -> Image.Image:
    """The background of `place`; it is cached, so copy it before drawing on it."""
    picture = Image.new("RGB", (canvas_px, canvas_px), SKY[place])
    brush = ImageDraw.Draw(picture, "RGBA")

    def piece(outline: Iterable[Point], colour: RGB, drop: float = 0.008) -> None:
        points = list(outline)
        if drop:
            brush.polygon([((x + drop) * canvas_px, (y + drop) * canvas_px) for x, y in points], fill=SHADOW)
        brush.polygon([(x * canvas_px, y * canvas_px) for x, y in points], fill=colour)

    def box(left: float, top: float, right: float, bottom: float, colour: RGB, drop: float = 0.008) -> None:
        piece([(left, top), (right, top), (right, bottom), (left, bottom)], colour, drop)

    def cloud(x: float, y: float) -> None:
        for dx, dy, radius in ((0, 0, 0.05), (0.06, -0.02, 0.06), (0.13, 0, 0.045)):
            piece(oval(x + dx, y + dy, radius, radius * 0.7), (242, 242, 240), drop=0)

    def ground(colour: RGB, height: float = 0.8) -> None:
        bumps = [(step / 12, height + 0.012 * math.sin(step * 1.7)) for step in range(13)]
        piece([(0, 1), *bumps, (1, 1)], colour, drop=-0.008)

    def pine(x: float, foot: float, height: float) -> None:
        box(x - 0.012, foot - 0.05, x + 0.012, foot, (120, 104, 94), drop=0)
        for level in range(3):
            top, width = foot - height + level * height * 0.24, 0.05 + 0.02 * level
            bottom = top + height * 0.42
            piece([(x - width, bottom), (x, top), (x + width, bottom)], (112, 128, 116), drop=0.006)

    match place:
        case "bus stop":
            cloud(0.1, 0.14)
            cloud(0.72, 0.24)
            piece([(0, 0.8), (0, 0.6), (0.25, 0.5), (0.5, 0.62), (0.8, 0.48), (1, 0.58), (1, 0.8)], (178, 182, 194))
            ground((240, 240, 238), 0.76)
            piece([(0, 1), (0, 0.87), (1, 0.85), (1, 1)], (136, 134, 140), drop=-0.006)
            for x in (0.03, 0.28, 0.53, 0.78):
                piece([(x, 0.93), (x + 0.02, 0.915), (x + 0.14, 0.91), (x + 0.12, 0.925)], (226, 222, 206), drop=0)
            box(0.845, 0.32, 0.87, 0.87, (104, 100, 106))
            box(0.76, 0.2, 0.955, 0.37, (236, 232, 220))
            box(0.79, 0.235, 0.925, 0.31, (92, 90, 102), drop=0)
            for x in (0.8, 0.845, 0.89):
                box(x, 0.245, x + 0.028, 0.275, (226, 226, 226), drop=0)
            for x in (0.815, 0.9):
                piece(oval(x, 0.315, 0.016, 0.016), (60, 58, 66), drop=0)
        case "lake":
            piece(oval(0.84, 0.17, 0.08, 0.08), (248, 238, 206))
            piece([(0, 0.6), (0, 0.44), (0.2, 0.38), (0.45, 0.5), (0.75, 0.4), (1, 0.5), (1, 0.6)], (170, 178, 172))
            box(0, 0.55, 1, 0.86, (176, 194, 206), drop=-0.008)
            for x, y in ((0.06, 0.62), (0.7, 0.6), (0.82, 0.68), (0.12, 0.73), (0.66, 0.76), (0.9, 0.77)):
                piece([(x, y), (x + 0.06, y - 0.01), (x + 0.12, y), (x + 0.06, y + 0.004)], (224, 232, 234), drop=0)
            piece([(0.02, 0.6), (0.17, 0.6), (0.14, 0.63), (0.05, 0.63)], (128, 112, 102))
            piece([(0.1, 0.595), (0.1, 0.47), (0.17, 0.58)], (244, 240, 230), drop=0.005)
            ground((222, 210, 188), 0.84)
        case "school":
            cloud(0.68, 0.1)
            box(0.05, 0.3, 0.95, 0.82, (188, 166, 152))
            piece([(0.01, 0.31), (0.1, 0.2), (0.9, 0.2), (0.99, 0.31)], (132, 118, 116))
            piece([(0.36, 0.21), (0.5, 0.1), (0.64, 0.21)], (170, 150, 140))
            for x in (0.1, 0.74):
                for y in (0.38, 0.57):
                    box(x, y, x + 0.16, y + 0.12, (240, 236, 222))
                    box(x + 0.074, y, x + 0.086, y + 0.12, (150, 140, 136), drop=0)
            box(0.4, 0.5, 0.6, 0.82, (112, 102, 104))
            ground((214, 208, 200), 0.8)
        case _:
            cloud(0.12, 0.2)
            cloud(0.7, 0.12)
            piece([(0, 0.9), (0, 0.66), (0.3, 0.5), (0.62, 0.64), (1, 0.46), (1, 0.9)], (190, 196, 184))
            pine(0.12, 0.68, 0.26)
            pine(0.86, 0.6, 0.24)
            pine(0.95, 0.66, 0.28)
            piece([(0, 1), *oval(0.5, 1.02, 0.86, 0.36, 180, 360), (1, 1)], (204, 204, 184), drop=-0.01)
            pine(0.06, 0.92, 0.3)
    return picture
