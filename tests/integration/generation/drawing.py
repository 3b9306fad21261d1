"""What tests of drawing share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sp_data.generation.options import SamplingOptions

RED, BLUE = "a kid in a red coat", "a kid in a blue coat"
SHORT = SamplingOptions(steps=2, prior_steps=2)
"""The samplers themselves are tested in tests/unit/generation."""
ROUNDING = 2
"""A batch of another size adds up in another order: so much may a pixel differ, of 255."""


def pixels(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(picture).astype(np.int64)


def differ(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pixels, of 255."""
    assert one.size == other.size
    return int(np.abs(pixels(one) - pixels(other)).max())


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@contextlib.contextmanager
def watched(network: Any, before: Callable[[int], None]) -> Iterator[list[int]]:
    """The number of rows of each forward pass of a network meanwhile; `before` is told of each before it runs."""
    rows: list[int] = []
    forward = network.forward
    had_its_own = "forward" in vars(network)

    def watching(x: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        rows.append(len(x))
        before(len(x))
        return forward(x, *arguments, **named)

    network.forward = watching
    try:
        yield rows
    finally:
        if had_its_own:
            network.forward = forward
        else:
            del network.forward
