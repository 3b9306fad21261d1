"""Between two embeddings: along the great circle, at equal speed, from the one to the other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sp_data.generation.generator import slerp

DIM = 4
VECTORS = st.lists(st.floats(-1, 1), min_size=DIM, max_size=DIM).filter(lambda row: sum(x * x for x in row) > 0.01)
POSITIONS = st.floats(0, 1)


def unit(row: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(row), dim=-1)


@given(VECTORS, VECTORS, POSITIONS)
def test_it_has_unit_length_and_the_same_comes_from_the_other_side(
    first: list[float], last: list[float], position: float
) -> None:
    a, b = unit(first), unit(last)
    between = slerp(a, b, position)
    assert float(between.norm()) == pytest.approx(1, abs=1e-5)
    if float(a @ b) > -0.99:
        # Opposite ones have no one circle.
        assert torch.allclose(between, slerp(b, a, 1 - position), atol=1e-3)


@given(VECTORS, VECTORS)
def test_its_ends_are_the_ends(first: list[float], last: list[float]) -> None:
    a, b = unit(first), unit(last)
    assert torch.allclose(slerp(a, b, 0), a, atol=1e-3)
    if float(a @ b) > -0.999:
        assert torch.allclose(slerp(a, b, 1), b, atol=1e-3)


@given(VECTORS, VECTORS, POSITIONS)
def test_the_angle_grows_with_the_position(first: list[float], last: list[float], position: float) -> None:
    a, b = unit(first), unit(last)
    angle = math.acos(max(-1.0, min(1.0, float(a @ b))))
    if angle > math.pi - 0.1:
        return
    between = slerp(a, b, position)
    assert math.acos(max(-1.0, min(1.0, float(between @ a)))) == pytest.approx(position * angle, abs=2e-3)


def test_between_equal_ones_there_is_nothing_else() -> None:
    a = unit([1.0, 2.0, 3.0, 4.0])
    assert torch.allclose(slerp(a, a, 0.3), a, atol=1e-6)
    assert float(slerp(a, unit([1.0, 2.0, 3.0, 4.001]), 0.5).norm()) == pytest.approx(1, abs=1e-6)
