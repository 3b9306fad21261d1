"""Curves in the report: every point has its place, and without points there is no chart."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from sp_data.report.chart import HEIGHT, WIDTH, line_chart


def test_a_falling_loss_falls() -> None:
    svg = line_chart({"loss": [(1, 1.0), (50, 0.1), (100, 0.01)]})
    ElementTree.fromstring(svg)
    match = re.search(r'points="([^"]*)"', svg)
    assert match
    points = [tuple(map(float, pair.split(","))) for pair in match[1].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points), "downwards is larger in an SVG"
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_names_are_escaped_and_values_without_a_logarithm_left_out() -> None:
    svg = line_chart({"<b>": [(1, 0.0), (2, 1.0)], "none": [(1, -1.0)]})
    assert "<b>" not in svg
    assert ">none<" not in svg


def test_one_point_and_none() -> None:
    ElementTree.fromstring(line_chart({"loss": [(10, 0.5)]}))
    assert line_chart({}) == ""
    assert line_chart({"loss": []}) == ""
