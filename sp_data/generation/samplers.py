"""From noise to a picture, by one unet: DDPM and DDIM are dalle2-pytorch's own loops, DPM-Solver++ 2M is diffusers'.

Each takes the unet as a `GuidedUnet`, which guides in one pass, counts the steps and sets the precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sp_data.generation.guidance import GuidedUnet
from sp_data.generation.options import Sampler
from sp_data.runtime.deferred import deferred
from sp_data.training.dalle2 import dalle2_module

NO_LIMIT = 1e6
"""dalle2-pytorch's dynamic threshold has no upper end."""
MIN_LOG_SNR = -5.1
"""Half the logarithm of the signal-to-noise ratio, below which DPM-Solver++ takes no step: a cosine schedule goes down
to -10, where the picture is noise alone and the step would be wasted."""


@dataclass(frozen=True, slots=True)
class Known:
    """The part of a picture that inpainting keeps, in a unet's own size."""

    images: torch.Tensor
    """`(n, 3, size, size)` float32 in 0..1."""
    keep: torch.Tensor
    """`(n, size, size)` bool, True = keep: dalle2-pytorch's mask."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a unet draws from, a row a picture."""

    image_embed: torch.Tensor
    text_encodings: torch.Tensor | None = None
    lowres: torch.Tensor | None = None
    """The smaller picture, enlarged to the unet's size, `(n, 3, size, size)` in 0..1."""
    lowres_noise_level: torch.Tensor | None = None


def sample_unet(
    decoder: Any,
    number: int,
    unet: GuidedUnet,
    condition: Condition,
    *,
    sampler: Sampler,
    steps: int,
    eta: float = 1.0,
    known: Known | None = None,
    resample_times: int = 1,
) -> torch.Tensor:
    """Pictures `(n, 3, size, size)` float32 in 0..1 by the decoder's `number`-th unet (from 1).

    `known`: for DDPM and DDIM, which repeat each step `resample_times` to make new and kept parts fit (RePaint).
    """
    index = number - 1
    scheduler = decoder.noise_schedulers[index]
    if sampler == "dpm++":
        return _dpm_solver(decoder, index, unet, condition, steps)
    size = decoder.image_sizes[index]
    arguments = {
        "image_embed": condition.image_embed,
        "text_encodings": condition.text_encodings,
        "lowres_cond_img": condition.lowres,
        "lowres_noise_level": condition.lowres_noise_level,
        "noise_scheduler": scheduler,
        "predict_x_start": decoder.predict_x_start[index],
        "predict_v": decoder.predict_v[index],
        "learned_variance": decoder.learned_variance[index],
        "inpaint_image": None if known is None else known.images,
        "inpaint_mask": None if known is None else known.keep,
        "inpaint_resample_times": resample_times,
    }
    shape = (len(condition.image_embed), decoder.sample_channels[index], size, size)
    if sampler == "ddpm":
        drawn: torch.Tensor = decoder.p_sample_loop_ddpm(unet, shape, **arguments)
        return drawn
    before, decoder.ddim_sampling_eta = decoder.ddim_sampling_eta, eta
    try:
        drawn = decoder.p_sample_loop_ddim(unet, shape, timesteps=steps, **arguments)
    finally:
        decoder.ddim_sampling_eta = before
    return drawn


def _dpm_solver(decoder: Any, index: int, unet: GuidedUnet, condition: Condition, steps: int) -> torch.Tensor:
    # diffusers imports them for what is not used here.
    with deferred("scipy", "torch._dynamo"):
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    noise_scheduler = decoder.noise_schedulers[index]
    prediction = "epsilon"
    if decoder.predict_v[index]:
        prediction = "v_prediction"
    elif decoder.predict_x_start[index]:
        prediction = "sample"
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=noise_scheduler.num_timesteps,
        trained_betas=noise_scheduler.betas.cpu().numpy(),
        prediction_type=prediction,
        thresholding=True,
        dynamic_thresholding_ratio=decoder.dynamic_thres_percentile,
        sample_max_value=NO_LIMIT if decoder.use_dynamic_thres else 1.0,
        lambda_min_clipped=MIN_LOG_SNR,
    )
    solver.set_timesteps(steps)
    distinct = list(dict.fromkeys(solver.timesteps.tolist()))
    if len(distinct) < len(solver.timesteps):
        # It would divide by the length of the step between two equal ones.
        solver.set_timesteps(timesteps=distinct)
    size = decoder.image_sizes[index]
    batch, device = len(condition.image_embed), condition.image_embed.device
    pictures = torch.randn((batch, decoder.sample_channels[index], size, size), device=device)
    lowres = None if condition.lowres is None else decoder.normalize_img(condition.lowres)
    for time in solver.timesteps:
        output = unet.forward_with_cond_scale(
            pictures,
            torch.full((batch,), int(time), device=device, dtype=torch.long),
            image_embed=condition.image_embed,
            text_encodings=condition.text_encodings,
            lowres_cond_img=lowres,
            lowres_noise_level=condition.lowres_noise_level,
        )
        predicted, _ = decoder.parse_unet_output(decoder.learned_variance[index], output)
        pictures = solver.step(predicted, time, pictures, return_dict=False)[0]
    drawn: torch.Tensor = decoder.unnormalize_img(pictures)
    return drawn


def lowres_condition(decoder: Any, number: int, smaller: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pictures of the unet before, `(n, 3, h, w)` in 0..1, as the condition of the `number`-th unet (from 1): enlarged
    pixel by pixel, with noise of a level that the unet is told, if it was taught so. Returns condition and level."""
    index = number - 1
    enlarged = dalle2_module().resize_image_to(
        smaller, target_image_size=decoder.image_sizes[index], clamp_range=decoder.input_image_range, nearest=True
    )
    conditioner = decoder.lowres_conds[index]
    if not conditioner.use_noise:
        return enlarged, None
    level = torch.full(
        (len(smaller),), int(decoder.lowres_noise_sample_level * 1000), dtype=torch.long, device=smaller.device
    )
    noised, _ = conditioner.noise_image(enlarged, level)
    return noised, level
