"""Classifier-free guidance in one pass: with and without the condition in one batch of twice the size.

    output = without + scale · (with − without)        (Ho & Salimans, arXiv:2207.12598)

dalle2-pytorch runs a network twice for this, one pass after the other. `GuidedUnet` and `guided_prior` stand for its
unet and its prior's network in its own sampling loops, and give the same numbers. 'Without' is the null condition that
the network learnt by drop-out, or a negative prompt: then guidance leads away from that, which needs no drop-out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sp_data.training.dalle2 import dalle2_module

OnStep = Callable[[], None]


class GuidedUnet:
    """A unet as dalle2-pytorch's sampling loops call it, with a scale, a precision and a count of its steps."""

    def __init__(
        self,
        unet: Any,
        scale: float,
        *,
        negative_embed: torch.Tensor | None = None,
        negative_encodings: torch.Tensor | None = None,
        autocast: contextlib.AbstractContextManager[Any] | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        """`negative_embed` `(n, dim)`, `negative_encodings` `(n, words, dim)`: what guidance leads away from; None: the
        null condition. `on_step` is called before each step; what it raises ends the loop."""
        self.unet, self.scale = unet, scale
        self.self_cond, self.lowres_cond = unet.self_cond, unet.lowres_cond
        self._negative_embed, self._negative_encodings = negative_embed, negative_encodings
        self._autocast, self._on_step = autocast or contextlib.nullcontext(), on_step

    def forward_with_cond_scale(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        *,
        image_embed: torch.Tensor,
        text_encodings: torch.Tensor | None = None,
        lowres_cond_img: torch.Tensor | None = None,
        lowres_noise_level: torch.Tensor | None = None,
        self_cond: torch.Tensor | None = None,
        cond_scale: float = 1.0,
    ) -> torch.Tensor:
        """`cond_scale` is that of the loop, which this takes the place of."""
        if self._on_step is not None:
            self._on_step()
        others = {
            "lowres_cond_img": lowres_cond_img,
            "lowres_noise_level": lowres_noise_level,
            "self_cond": self_cond,
        }
        with self._autocast:
            if self.scale == 1:
                plain: torch.Tensor = self.unet.forward(
                    x, time, image_embed=image_embed, text_encodings=text_encodings, **others
                )
                return plain.float()
            with _second_half_dropped(is_null=self._negative_embed is None):
                both = self.unet.forward(
                    _twice(x),
                    _twice(time),
                    image_embed=_joined(image_embed, self._negative_embed),
                    text_encodings=_joined(text_encodings, self._negative_encodings),
                    **{name: _twice(value) for name, value in others.items()},
                )
        return _guided(both, self.scale)


@contextlib.contextmanager
def guided_prior(
    prior: Any,
    scale: float,
    *,
    negative: dict[str, torch.Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[None]:
    """Within the context, the sampling loops of a DiffusionPrior are guided in one pass.

    `negative`: the condition that guidance leads away from, as `guess` takes it; None: the null condition.
    """
    net = prior.net

    def forward(x: torch.Tensor, time: torch.Tensor, *, cond_scale: float = 1.0, **condition: Any) -> torch.Tensor:
        if on_step is not None:
            on_step()
        if scale == 1:
            plain: torch.Tensor = net.forward(x, time, **condition)
            return plain
        others = negative or {}
        with _second_half_dropped(is_null=negative is None):
            both = net.forward(
                _twice(x), _twice(time), **{name: _joined(value, others.get(name)) for name, value in condition.items()}
            )
        return _guided(both, scale)

    net.forward_with_cond_scale = forward
    try:
        yield
    finally:
        del net.forward_with_cond_scale


def _guided(both: torch.Tensor, scale: float) -> torch.Tensor:
    # In float32: the difference of two numbers of 8 bits, times the scale, would be coarse.
    conditioned, free = both.float().chunk(2)
    return free + (conditioned - free) * scale


def _twice(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else torch.cat((value, value))


def _joined(value: torch.Tensor | None, negative: torch.Tensor | None) -> torch.Tensor | None:
    if value is None:
        return None
    return torch.cat((value, value if negative is None else negative.to(value.dtype)))


@contextlib.contextmanager
def _second_half_dropped(*, is_null: bool) -> Iterator[None]:
    """Within the context the second half of a batch has the null condition, if `is_null`."""
    if not is_null:
        yield
        return
    module: Any = dalle2_module()
    original = module.prob_mask_like

    def keep_first_half(shape: tuple[int, ...], _: float, device: torch.device) -> torch.Tensor:
        return torch.arange(shape[0], device=device) < shape[0] // 2

    module.prob_mask_like = keep_first_half
    try:
        yield
    finally:
        module.prob_mask_like = original


def is_conditioned(unet: nn.Module) -> bool:
    """Whether a unet has a condition at all: without one, guidance would run it twice for nothing."""
    return bool(getattr(unet, "cond_on_image_embeds", False) or getattr(unet, "cond_on_text_encodings", False))
