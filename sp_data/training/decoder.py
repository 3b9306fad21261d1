"""The decoder draws a picture from an image embedding: embedding -> picture, one unet per size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sp_data.dataset.embed.clip import load_clip
from sp_data.recipe import Decoder, Embed
from sp_data.training.models import Kind, build, decoder_config
from sp_data.training.task import Batch, captions, tensor
from sp_data.training.words import WordEncoder

NUM_PICTURES = 8


class DecoderTask:
    kind: Kind = "decoder"
    measures: tuple[str, ...] = ()

    def __init__(self, settings: Decoder, embed: Embed) -> None:
        self.config = decoder_config(settings, embed.dim)
        self.model = build("decoder", self.config)
        self.sizes = [unet.image_size_px for unet in settings.unets]
        self.image_size_px: int | None = self.sizes[-1]
        self.reads_words = [unet.text_encodings for unet in settings.unets]
        self.words = WordEncoder(load_clip(embed.clip_model, embed.dim)) if any(self.reads_words) else None

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[torch.Tensor]:
        images = tensor(batch, "image")
        encodings = self._encodings(batch)
        for number, size in enumerate(self.sizes, start=1):
            # Scaled down here, since Decoder itself would take every n-th pixel.
            resized = (
                images if images.shape[-1] == size else F.interpolate(images, size, mode="bicubic", antialias=True)
            )
            yield model(
                resized.clamp(0, 1),
                image_embed=tensor(batch, "image_embed"),
                text_encodings=encodings,
                unet_number=number,
            )

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        return {}

    def pictures(self, model: nn.Module, batch: Batch) -> list[Image.Image]:
        """Real pictures of the val split; below each, the picture drawn from its embedding."""
        first: Batch = {name: value[:NUM_PICTURES] for name, value in batch.items()}
        drawn = draw(model, tensor(first, "image_embed"), self._encodings(first))
        return [*to_pictures(tensor(first, "image")), *to_pictures(drawn)]

    def _encodings(self, batch: Batch) -> torch.Tensor | None:
        if self.words is None:
            return None
        return self.words(captions(batch)).to(tensor(batch, "image_embed").device)


def draw(
    model: nn.Module,
    image_embed: torch.Tensor,
    text_encodings: torch.Tensor | None = None,
    *,
    steps: int | None = None,
    cond_scale: float = 1.0,
) -> torch.Tensor:
    """Pictures `(n, 3, size, size)` float32 in 0..1 from image embeddings `(n, dim)`, by dalle2-pytorch's sampler."""
    before = model.sample_timesteps
    if steps is not None:
        model.sample_timesteps = (steps,) * len(before)  # type: ignore[arg-type]
    try:
        drawn: torch.Tensor = model.sample(  # type: ignore[operator]
            image_embed=image_embed, text_encodings=text_encodings, cond_scale=cond_scale
        )
    finally:
        model.sample_timesteps = before
    return drawn.float().clamp(0, 1)


def to_pictures(images: torch.Tensor) -> list[Image.Image]:
    """PIL images of `(n, 3, height, width)` in 0..1."""
    pixels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
