"""Noise that depends only on a picture's own seed, not on the rest of its batch or on the device.

dalle2-pytorch's samplers take noise for a whole batch from torch's global generator, so the second picture of a batch
would change with the first. Inside `NoiseByPicture` each row has its own generator, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sp_data.training.seeds import number_of


class NoiseByPicture(TorchFunctionMode):
    """Make `torch.randn(shape)` and `torch.randn_like(x)` draw row i from the i-th seed; the batch has one row per
    seed. `purpose` makes the noise of one seed differ between models."""

    def __init__(self, purpose: str, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(number_of(purpose, seed)) for seed in seeds]

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.randn:
            shape = tuple(args[0]) if isinstance(args[0], Sequence) else tuple(args)
            return self._rows(shape).to(device=kwargs.get("device"), dtype=kwargs.get("dtype"))
        if function is torch.randn_like:
            like: torch.Tensor = args[0]
            return self._rows(tuple(like.shape)).to(device=like.device, dtype=like.dtype)
        return function(*args, **kwargs)

    def _rows(self, shape: tuple[int, ...]) -> torch.Tensor:
        if shape[0] != len(self.generators):
            raise ValueError(f"noise of shape {shape} for {len(self.generators)} seeds: expected one row per seed")
        return torch.stack([torch.randn(shape[1:], generator=generator) for generator in self.generators])
