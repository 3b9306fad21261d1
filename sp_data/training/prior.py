"""The prior predicts the image embedding of a caption: text embedding -> image embedding, row by row."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from sp_data.recipe import Prior
from sp_data.training.draws import Draws
from sp_data.training.measures.prior import prior_figures
from sp_data.training.models import Kind, build_prior, prior_config
from sp_data.training.task import Batch, tensor


class PriorTask:
    kind: Kind = "prior"
    name = field = "prior"
    measures: tuple[str, ...] = ("cosine", "cosine_caption", "cosine_mean", "cosine_other")
    image_size_px: int | None = None

    def __init__(self, settings: Prior, dim: int, layout: str | None = None) -> None:
        """`layout`: of the weights that it begins with (models.LAYOUT)."""
        self.config = prior_config(settings, dim, layout)
        self.model: Any = build_prior(self.config)
        self.network: nn.Module = self.model
        self.reads_words = settings.text_encodings
        self.mean_picture: torch.Tensor | None = None
        """The mean image embedding of the training split `(dim,)`, to compare with."""

    def loss(self, batch: Batch, draws: Draws) -> torch.Tensor:
        # DiffusionPrior.forward itself would scale the batch's embeddings in place, and draw its own numbers.
        image_embed = tensor(batch, "image_embed") * self.model.image_embed_scale
        with draws.deciding_what_is_dropped():
            loss: torch.Tensor = self.model.p_losses(
                image_embed,
                draws.integers("times", self.model.noise_scheduler.num_timesteps),
                text_cond=self._condition(batch),
                noise=draws.normal("noise", image_embed.shape[1:]),
            )
        return loss

    def measure(self, batch: Batch) -> dict[str, float]:
        """Cosines of predicted embeddings beside three baselines (measures/prior.py)."""
        own = tensor(batch, "image_embed")
        predicted = guess(self.model, self._condition(batch), own.shape[-1])
        mean = own.mean(0) if self.mean_picture is None else self.mean_picture
        rows = (predicted, own, tensor(batch, "text_embed"), mean)
        return prior_figures(*(row.float().cpu().numpy() for row in rows))

    def real(self, batch: Batch) -> list[Image.Image]:
        return []

    def draw(self, batch: Batch) -> list[Image.Image]:
        return []

    def _condition(self, batch: Batch) -> dict[str, torch.Tensor]:
        condition = {"text_embed": tensor(batch, "text_embed")}
        if self.reads_words:
            condition["text_encodings"] = tensor(batch, "text_encodings")
        return condition


def guess(model: Any, condition: dict[str, torch.Tensor], dim: int) -> torch.Tensor:
    """Image embeddings `(n, dim)` float32 of unit length, by dalle2-pytorch's sampler.

    `condition` has `text_embed` `(n, dim)`, and `text_encodings` `(n, words, dim)` if the prior reads words.
    """
    sampled: torch.Tensor = model.p_sample_loop(
        (len(condition["text_embed"]), dim),
        text_cond=condition,
        timesteps=model.sample_timesteps,
    )
    return torch.nn.functional.normalize(sampled.float(), dim=-1)
