"""Averaged weights (EMA): smoother than those of any single step; they generate.

decay = min(ema_decay, 1 - (1 + step)^-2/3): 0.95 after 100 steps, 0.99 after 1,000; the warm-up of Karras' k-diffusion
and of ema-pytorch, whose values these are. Only trained weights are averaged, so a LoRA costs its own size again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

POWER = 2 / 3


class Average:
    """The moving average of a network's trained weights."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._averaged = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step. The first update copies them."""
        self.num_updates += 1
        # The first weights of a run are far from the later ones: they are replaced, not averaged.
        decay = min(self.decay, 1 - self.num_updates**-POWER) if self.num_updates > 1 else 0.0
        torch._foreach_lerp_(list(self._averaged.values()), list(self._trained.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context, the network has the averaged weights. Nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._trained.items():
            weight.data, self._averaged[name] = self._averaged[name], weight.data

    def state(self) -> dict[str, torch.Tensor]:
        """Name -> averaged weight."""
        return dict(self._averaged)

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor], num_updates: int) -> None:
        """Go on from these averages. Raises KeyError if one is missing."""
        for name, averaged in self._averaged.items():
            averaged.copy_(state[name])
        self.num_updates = num_updates
