"""The prior predicts the image embedding of a caption: text embedding -> image embedding, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image
from torch import nn

from sp_data.dataset.embed.clip import load_clip
from sp_data.recipe import Embed, Prior
from sp_data.training.models import Kind, build, prior_config
from sp_data.training.task import Batch, captions, tensor
from sp_data.training.words import WordEncoder


class PriorTask:
    kind: Kind = "prior"
    measures: tuple[str, ...] = ("cosine", "cosine_other")
    image_size_px: int | None = None

    def __init__(self, settings: Prior, embed: Embed) -> None:
        self.config = prior_config(settings, embed.dim)
        self.model = build("prior", self.config)
        self.words = WordEncoder(load_clip(embed.clip_model, embed.dim)) if settings.text_encodings else None

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[torch.Tensor]:
        # A clone, since DiffusionPrior scales the embedding in place.
        yield model(**self._condition(batch), image_embed=tensor(batch, "image_embed").clone())

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean cosine of a caption's predicted embedding to its own picture's embedding, and to other pictures'."""
        own = tensor(batch, "image_embed")
        predicted = guess(model, self._condition(batch), own.shape[-1])
        cosines = predicted @ own.T
        count = len(own)
        figures = {"cosine": float(cosines.diagonal().mean())}
        if count > 1:
            others = (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
            figures["cosine_other"] = float(others)
        return figures

    def pictures(self, model: nn.Module, batch: Batch) -> list[Image.Image]:
        return []

    def _condition(self, batch: Batch) -> dict[str, torch.Tensor]:
        condition = {"text_embed": tensor(batch, "text_embed")}
        if self.words is not None:
            condition["text_encodings"] = self.words(captions(batch)).to(condition["text_embed"].device)
        return condition


def guess(model: nn.Module, condition: dict[str, torch.Tensor], dim: int) -> torch.Tensor:
    """Image embeddings `(n, dim)` float32 of unit length, by dalle2-pytorch's sampler.

    `condition` has `text_embed` `(n, dim)`, and `text_encodings` `(n, words, dim)` if the prior reads words.
    """
    sampled = model.p_sample_loop(  # type: ignore[operator]
        (len(condition["text_embed"]), dim),
        text_cond=condition,
        timesteps=model.sample_timesteps,
    )
    return torch.nn.functional.normalize(sampled.float(), dim=-1)
