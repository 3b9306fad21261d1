"""What the loop trains: a prior or a decoder, as a model, its loss on a batch, and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

from sp_data.dataset.loader.samples import Sample
from sp_data.training.models import Kind

Batch = dict[str, torch.Tensor | list[str]]


class Task(Protocol):
    kind: Kind
    config: dict[str, Any]
    """dalle2-pytorch's configuration, from which `model` was built."""
    model: nn.Module
    """dalle2-pytorch's model."""
    measures: tuple[str, ...]
    """Names of the figures that `measure` gives."""
    image_size_px: int | None
    """Size of the pictures in a batch; None: it needs no pictures."""

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[torch.Tensor]:
        """One scalar for each network that is trained; propagate each back before taking the next."""

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """Figures beyond the loss, of a batch from the val split."""

    def pictures(self, model: nn.Module, batch: Batch) -> list[Image.Image]:
        """Pictures that the model draws from a batch; empty if it draws none."""


def collate(samples: list[Sample]) -> Batch:
    """Stack the tensors; list keys and captions."""
    batch: Batch = {name: [sample[name] for sample in samples] for name in ("key", "caption")}
    for name in ("image", "image_embed", "text_embed"):
        if name in samples[0]:
            # In a process that reads ahead, torch's own collate stacks directly into shared memory.
            batch[name] = default_collate([sample[name] for sample in samples])
    return batch


def tensor(batch: Batch, name: str) -> torch.Tensor:
    value = batch[name]
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} of a batch is a {type(value).__name__}, expected a tensor")
    return value


def captions(batch: Batch) -> list[str]:
    value = batch["caption"]
    if isinstance(value, torch.Tensor):
        raise TypeError("caption of a batch is a tensor, expected a list of texts")
    return value


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors on the device; pictures, which come as bytes, become float32 in 0..1."""
    moved: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=True)
            moved[name] = value.float().div_(255) if value.dtype == torch.uint8 else value
        else:
            moved[name] = value
    return moved
