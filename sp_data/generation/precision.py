"""The precision of the unets: bf16 where it is clearly faster here, which is measured and not assumed.

A processor that has bfloat16 may still be slower with it on a small network, and so may an old GPU.

In bf16 the weights of products are rounded once, which halves their memory. Autocast would round them at each step,
since it remembers only the rounded weights of what is trained. What a step computes is the same to the last bit.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sp_data.generation.models import Models

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
GenerationPrecision = Literal["auto", "fp32", "bf16"]
CLEARLY = 1.15
"""How much faster bf16 must be: near one, chance would decide, and equal commands would draw other pixels."""
ROUNDS = 5
LONG_S = 1.0
"""A pass that takes longer is not repeated."""
PRODUCTS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
"""Exactly these: a class that derives from one may read its weight otherwise, as WeightStandardizedConv2d does."""


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def settle_precision(models: Models, requested: GenerationPrecision) -> Precision:
    """The precision to draw with; in bf16 the unets' weights are rounded for good, which halves their memory.

    Raises ValueError for fp32 if they have been rounded already.
    """
    unets = list(models.decoder.unets)
    is_rounded = any(weight.dtype == torch.bfloat16 for unet in unets for weight in product_weights(unet))
    if is_rounded and requested == "fp32":
        raise ValueError("these models were rounded to bfloat16 when they were first drawn with: load them again")
    chosen: Precision = "bf16" if is_rounded else faster_precision(models) if requested == "auto" else requested
    if chosen == "bf16":
        for unet in unets:
            round_weights(unet)
    return chosen


def product_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights and biases that autocast rounds to bfloat16 wherever they are read."""
    products = (module for module in network.modules() if type(module) in PRODUCTS)
    return [weight for module in products for weight in module.parameters(recurse=False)]


def round_weights(network: nn.Module) -> None:
    """Round them to bfloat16. From then on the network computes only under autocast."""
    for weight in product_weights(network):
        # One by one: two copies of a billion weights need not fit.
        weight.data = weight.data.to(torch.bfloat16)


def faster_precision(models: Models) -> Precision:
    """The faster precision of the last unet's forward pass, which takes most of the time: by the fastest of a few
    passes of one picture, in turn, so that other load slows both.

    Meanwhile that unet's weights are there twice, as they are and rounded; afterwards they are as before.
    """
    weights = product_weights(models.decoder.unets[-1])
    exact = [weight.data for weight in weights]
    values: dict[Precision, list[Tensor]] = {"fp32": exact, "bf16": [value.to(torch.bfloat16) for value in exact]}
    fastest: dict[Precision, float] = dict.fromkeys(values, float("inf"))
    try:
        for round_ in range(ROUNDS + 1):
            seconds: dict[Precision, float] = {}
            for precision in values:
                _give(weights, values[precision])
                seconds[precision] = _seconds(models, precision)
            is_long = max(seconds.values()) > LONG_S
            if round_ > 0 or is_long:
                # The first pass sets things up.
                fastest = {precision: min(fastest[precision], seconds[precision]) for precision in fastest}
            if is_long:
                break
    finally:
        _give(weights, exact)
    chosen: Precision = "bf16" if fastest["fp32"] > CLEARLY * fastest["bf16"] else "fp32"
    log.info("generate: a step takes %.1f ms in fp32, %.1f in bf16", fastest["fp32"] * 1e3, fastest["bf16"] * 1e3)
    return chosen


def _give(weights: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.data = value


@torch.inference_mode()
def _seconds(models: Models, precision: Precision) -> float:
    decoder, device = models.decoder, models.device
    unet, size = decoder.unets[-1], int(decoder.image_sizes[-1])
    picture = torch.zeros((1, 3, size, size), device=device)
    time_ = torch.zeros(1, dtype=torch.long, device=device)
    words = torch.zeros((1, 77, unet.text_embed_dim), device=device) if unet.cond_on_text_encodings else None
    # None for a unet that enlarges nothing.
    conditioner = decoder.lowres_conds[-1]
    _wait(device)
    start = time.perf_counter()
    with autocast(precision, device):
        unet.forward(
            picture,
            time_,
            image_embed=torch.zeros((1, models.dim), device=device),
            text_encodings=words,
            lowres_cond_img=picture if unet.lowres_cond else None,
            lowres_noise_level=time_ if conditioner is not None and conditioner.use_noise else None,
        )
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
