"""Noise that is the same in every torch: numpy's RandomState is frozen, torch's generators are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch


@contextlib.contextmanager
def recorded_noise(seed: int) -> Iterator[None]:
    """Within the context torch.randn and torch.randn_like draw from RandomState(seed)."""
    random = np.random.RandomState(seed)

    def randn(*shape: object, **_: object) -> torch.Tensor:
        size = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return torch.from_numpy(random.standard_normal(tuple(size)).astype(np.float32))

    with (
        mock.patch("torch.randn", randn),
        mock.patch("torch.randn_like", lambda like, **_: randn(like.shape)),
    ):
        yield
