"""A sweep: every combination of some options, and the grid that shows which picture had which."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sp_data.errors import UsageError
from sp_data.generation.files import CELL_PX, GAP_PX
from sp_data.generation.picture import GeneratedPicture
from sp_data.generation.sweep import Sweep, grid


def made(value: int) -> GeneratedPicture:
    return GeneratedPicture(Image.new("RGB", (8, 8), (value, 0, 0)), {})


def test_every_combination_comes_once_row_by_row() -> None:
    axes = Sweep({"cond_scale": (1.0, 2.5), "steps": (8,), "prior_cond_scale": (1.0, 2.0, 5.0)})
    assert len(axes) == 6
    assert axes.num_columns == 2
    settings = axes.settings()
    assert [(each["prior_cond_scale"], each["cond_scale"], each["steps"]) for each in settings] == [
        (1.0, 1.0, 8),
        (1.0, 2.5, 8),
        (2.0, 1.0, 8),
        (2.0, 2.5, 8),
        (5.0, 1.0, 8),
        (5.0, 2.5, 8),
    ]
    assert axes.label(settings[3], axes.varied) == "prior 2, decoder 2.5"


def test_the_grid_has_each_picture_in_the_row_and_column_of_its_options() -> None:
    axes = Sweep({"prior_cond_scale": (1.0, 2.0), "cond_scale": (1.0, 2.0, 3.0)})
    canvas = np.asarray(grid([made(40 * number + 10) for number in range(6)], axes, "a kid · seed 0"))
    cell, left, top = CELL_PX + GAP_PX, 132, 48
    assert canvas.shape == (top + 2 * cell, left + 3 * cell, 3)
    for number in range(6):
        row, column = divmod(number, 3)
        pixel = canvas[top + row * cell + CELL_PX // 2, left + column * cell + CELL_PX // 2]
        assert tuple(pixel) == (40 * number + 10, 0, 0)

    def is_written(rows: slice, columns: slice) -> bool:
        return bool((canvas[rows, columns] < 128).any())

    assert is_written(slice(GAP_PX, 22), slice(0, 132)), "the title"
    assert all(is_written(slice(24, 46), slice(left + column * cell, left + column * cell + 60)) for column in range(3))
    assert all(is_written(slice(top + row * cell, top + row * cell + CELL_PX), slice(0, left)) for row in range(2))


def test_a_grid_of_one_row_has_no_labels_beside_it() -> None:
    axes = Sweep({"steps": (8, 25)})
    assert grid([made(1), made(2)], axes, "a kid").size == (GAP_PX + 2 * (CELL_PX + GAP_PX), 48 + CELL_PX + GAP_PX)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, r"a sweep of one picture: give an option several values, such as --steps 8,25"),
        ({"steps": (8,)}, r"a sweep of one picture"),
        ({"seed": (1, 2)}, r"a sweep of seed: expected sampler, steps, prior_cond_scale"),
        ({"steps": ()}, r"a sweep of steps over \[\]: expected different values"),
        ({"steps": (8, 8)}, r"a sweep of steps over \[8, 8\]: expected different values"),
        ({"steps": tuple(range(17)), "eta": tuple(range(16))}, r"a sweep of 272 pictures: at most 256"),
    ],
)
def test_what_is_no_sweep_is_refused_in_a_sentence(values: dict[str, tuple[float, ...]], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Sweep(values)
