"""The precision of the unets: bf16 where it is clearly faster here, which is measured and not assumed.

A processor that has bfloat16 may still be slower with it on a small network, and so may an old GPU.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Literal

import torch

from sp_data.generation.models import Models

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
GenerationPrecision = Literal["auto", "fp32", "bf16"]
CLEARLY = 1.15
"""How much faster bf16 must be: near one, chance would decide, and equal commands would draw other pixels."""
ROUNDS = 5
LONG_S = 1.0
"""A pass that takes longer is not repeated."""


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@torch.inference_mode()
def faster_precision(models: Models) -> Precision:
    """The faster precision of the last unet's forward pass, which takes most of the time: by the fastest of a few
    passes of one picture, in turn, so that other load slows both."""
    fastest = {"fp32": float("inf"), "bf16": float("inf")}
    for round_ in range(ROUNDS + 1):
        seconds = {precision: _seconds(models, precision) for precision in ("fp32", "bf16")}
        is_long = max(seconds.values()) > LONG_S
        if round_ > 0 or is_long:
            # The first pass sets things up.
            fastest = {precision: min(fastest[precision], seconds[precision]) for precision in fastest}
        if is_long:
            break
    chosen: Precision = "bf16" if fastest["fp32"] > CLEARLY * fastest["bf16"] else "fp32"
    log.info("generate: a step takes %.1f ms in fp32, %.1f in bf16", fastest["fp32"] * 1e3, fastest["bf16"] * 1e3)
    return chosen


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
