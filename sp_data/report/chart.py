"""Curves as a small inline SVG: steps to the right, a logarithmic scale upwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sp_data.foreign_text import html_text

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 12, 26
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed")


def line_chart(series: Mapping[str, Points]) -> str:
    """An SVG of named curves. The scale has no place for values of zero or below, so they are left out.

    Returns an empty string if there is nothing to draw.
    """
    curves = {name: [(x, y) for x, y in points if y > 0] for name, points in series.items()}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    xs = [x for points in curves.values() for x, _ in points]
    ys = [math.log10(y) for points in curves.values() for _, y in points]
    low, high = min(ys), max(max(ys), min(ys) + 0.1)
    left, right = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        down = TOP + (high - math.log10(y)) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return across, down

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html_text(", ".join(curves))} by step" font-family="inherit" font-size="11">'
    ]
    for tick in range(5):
        value = 10 ** (low + (high - low) * tick / 4)
        _, down = place(left, value)
        parts.append(f'<path d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end" fill="currentColor">{value:.3g}</text>'
        )
    for x, anchor in ((left, "start"), (right, "end")):
        across, _ = place(x, 10**low)
        parts.append(
            f'<text x="{across:.0f}" y="{HEIGHT - 8}" text-anchor="{anchor}" fill="currentColor">{x:,.0f}</text>'
        )
    for number, ((name, points), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{TOP + 4 + 14 * number}" text-anchor="end" fill="{colour}">'
            f"{html_text(name)}</text>"
        )
    return "".join(parts) + "</svg>"
