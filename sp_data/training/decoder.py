"""A unet of the decoder: image embedding -> picture (the first), or small picture -> larger picture (the others).

    picture 256 px ──antialiased──> 64 px   what the first unet is taught
                  └──antialiased──> 256 px  what the second is taught, from those same 64 px, blurred and noised as
                                            drawing may turn out, enlarged pixel by pixel

dalle2-pytorch's own training takes every n-th pixel for the small picture, which is not what its first unet draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sp_data.recipe import Decoder
from sp_data.training.draws import Draws
from sp_data.training.models import Kind, build_decoder, cascade, unet_config
from sp_data.training.task import Batch, tensor

FEWEST_STEPS = 25


class UnetTask:
    kind: Kind = "decoder"
    measures: tuple[str, ...] = ()

    def __init__(self, settings: Decoder, number: int, dim: int, layout: str | None = None) -> None:
        """`number`: which of the decoder's unets, from 1. `layout`: of the weights that it begins with."""
        self.number = number
        self.name = "decoder" if len(settings.unets) == 1 else f"unet {number}"
        self.field = "decoder" if len(settings.unets) == 1 else f"decoder.unets.{number - 1}"
        self.config = unet_config(settings, number, dim, layout)
        self.model: Any = build_decoder(cascade(self.config, number), only=number)
        self.network: nn.Module = self.model.unets[number - 1]
        self.crop_px = settings.unets[number - 1].random_crop_px
        self.image_size_px: int | None = settings.image_size_px
        self.reads_words = settings.unets[number - 1].text_encodings
        self._learned_variance = bool(self.config["learned_variance"])
        self.scheduler: Any = self.model.noise_schedulers[number - 1]
        if settings.snr_gamma is not None:
            weigh_by_snr(self.scheduler, settings.objective, settings.snr_gamma)

    def loss(self, batch: Batch, draws: Draws) -> torch.Tensor:
        images = tensor(batch, "image")
        target = resized(images, int(self.config["image_size"]))
        condition, level = self._lowres_condition(images, draws)
        if self.crop_px is not None and condition is not None:
            both = cropped(torch.cat((target, condition), dim=1), self.crop_px, draws)
            target, condition = both.chunk(2, dim=1)
        with draws.deciding_what_is_dropped():
            loss: torch.Tensor = self.model.p_losses(
                self.network,
                target,
                draws.integers("times", self.scheduler.num_timesteps),
                image_embed=tensor(batch, "image_embed"),
                text_encodings=self._encodings(batch),
                noise_scheduler=self.scheduler,
                lowres_cond_img=condition,
                lowres_noise_level=level,
                predict_x_start=self.config["predict_x_start"],
                predict_v=self.config["predict_v"],
                learned_variance=self._learned_variance,
                noise=draws.normal("noise", target.shape[1:]),
            )
        return loss

    def measure(self, batch: Batch) -> dict[str, float]:
        return {}

    def real(self, batch: Batch) -> list[Image.Image]:
        return to_pictures(resized(tensor(batch, "image"), int(self.config["image_size"])))

    def draw(self, batch: Batch) -> list[Image.Image]:
        """From the embeddings of real pictures; an upsampler enlarges those pictures made small."""
        small = None
        if self.number > 1:
            small = resized(tensor(batch, "image"), int(self.config["lowres_size"]))
        drawn = draw(
            self.model,
            tensor(batch, "image_embed"),
            self._encodings(batch),
            small=small,
            start_at=self.number,
            steps=drawing_steps(self.config["sample_timesteps"], self.config["timesteps"]),
        )
        return to_pictures(drawn)

    def _lowres_condition(self, images: torch.Tensor, draws: Draws) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What an upsampler enlarges: `(n, 3, size, size)` in 0..1, and the level of its noise `(n,)`."""
        if self.number == 1:
            return None, None
        conditioner = self.model.lowres_conds[self.number - 1]
        small = resized(images, int(self.config["lowres_size"]))
        if conditioner.use_blur and draws.scalar("blur") < conditioner.blur_prob:
            small = blurred(small, conditioner.blur_sigma, conditioner.blur_kernel_size, draws)
        condition = F.interpolate(small, int(self.config["image_size"]), mode="nearest")
        if not conditioner.use_noise:
            return condition, None
        level = draws.integers("lowres level", conditioner.noise_scheduler.num_timesteps)
        noise = draws.normal("lowres noise", condition.shape[1:])
        noised = conditioner.noise_scheduler.q_sample(condition * 2 - 1, t=level, noise=noise)
        return (noised + 1) / 2, level

    def _encodings(self, batch: Batch) -> torch.Tensor | None:
        return tensor(batch, "text_encodings") if self.reads_words else None


def drawing_steps(sample_timesteps: int, timesteps: int) -> int:
    """Steps of a training's own pictures, which DDIM draws: it needs more than the solver that generates."""
    return min(max(sample_timesteps, FEWEST_STEPS), timesteps)


def resized(images: torch.Tensor, size_px: int) -> torch.Tensor:
    """Pictures `(n, 3, h, w)` in 0..1 as `(n, 3, size, size)`, antialiased: what a unet of this size is taught."""
    if images.shape[-1] == size_px:
        return images
    return F.interpolate(images, size_px, mode="bicubic", antialias=True).clamp(0, 1)


def cropped(images: torch.Tensor, size_px: int, draws: Draws) -> torch.Tensor:
    """A random square of each picture `(n, c, h, w)`, as `(n, c, size, size)`."""
    span = images.shape[-1] - size_px + 1
    corners = zip(draws.offsets("crop top", span), draws.offsets("crop left", span), strict=True)
    return torch.stack(
        [
            image[:, top : top + size_px, left : left + size_px]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
    )


def blurred(
    images: torch.Tensor, sigma: float | Sequence[float], kernel_px: int | Sequence[int], draws: Draws
) -> torch.Tensor:
    """As dalle2-pytorch's LowresConditioner blurs: one sigma and one kernel a batch, each fixed or from a range."""
    from kornia.filters import gaussian_blur2d

    if isinstance(sigma, Sequence):
        sigma = sigma[0] + (sigma[1] - sigma[0]) * draws.scalar("blur sigma")
    if isinstance(kernel_px, Sequence):
        kernel_px = int(kernel_px[0] + (kernel_px[1] + 1 - kernel_px[0]) * draws.scalar("blur kernel"))
    made: torch.Tensor = gaussian_blur2d(images, (kernel_px, kernel_px), (sigma, sigma))
    return made


def weigh_by_snr(scheduler: Any, objective: str, gamma: float) -> None:
    """Weigh the loss of each timestep by min(SNR, gamma), in units of the objective (Hang et al., arXiv:2303.09556).

    dalle2-pytorch has a weight for each timestep (its p2 weights), which these replace.
    """
    alphas: torch.Tensor = scheduler.alphas_cumprod
    snr = alphas / (1 - alphas)
    clipped = snr.clamp(max=gamma)
    weights = {"noise": clipped / snr, "v": clipped / (snr + 1), "x_start": clipped}[objective]
    scheduler.p2_loss_weight.copy_(weights)
    scheduler.has_p2_loss_reweighting = True


def draw(
    model: Any,
    image_embed: torch.Tensor,
    text_encodings: torch.Tensor | None = None,
    *,
    small: torch.Tensor | None = None,
    start_at: int = 1,
    steps: int | None = None,
    cond_scale: float = 1.0,
) -> torch.Tensor:
    """Pictures `(n, 3, size, size)` float32 in 0..1 from image embeddings `(n, dim)`, by dalle2-pytorch's sampler.

    `small`: pictures that the unet `start_at` (from 1) enlarges, in the size that the one before it draws.
    """
    before = model.sample_timesteps
    if steps is not None:
        model.sample_timesteps = (steps,) * len(before)
    # A unet without a condition gives the same with it and without: guidance would run it twice for nothing.
    unets: Sequence[nn.Module] = model.unets
    scales = tuple(cond_scale if _is_conditioned(unet) else 1.0 for unet in unets)
    try:
        drawn: torch.Tensor = model.sample(
            image=small,
            image_embed=image_embed,
            text_encodings=text_encodings,
            cond_scale=scales,
            start_at_unet_number=start_at,
            one_unet_in_gpu_at_time=False,
        )
    finally:
        model.sample_timesteps = before
    return drawn.float().clamp(0, 1)


def _is_conditioned(unet: nn.Module) -> bool:
    return bool(getattr(unet, "cond_on_image_embeds", False) or getattr(unet, "cond_on_text_encodings", False))


def to_pictures(images: torch.Tensor) -> list[Image.Image]:
    """PIL images of `(n, 3, height, width)` in 0..1."""
    pixels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
