"""What the loop trains: a prior or one unet, as a network, its loss on a batch, and its figures."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

from sp_data.dataset.loader.samples import Sample
from sp_data.training.draws import Draws
from sp_data.training.models import Kind

Batch = dict[str, torch.Tensor | list[str]]
TENSORS = ("image", "image_embed", "text_embed", "text_encodings")


class Task(Protocol):
    kind: Kind
    name: str
    """For people: 'prior', 'decoder' or 'unet 2'."""
    field: str
    """Where the recipe sets it: 'prior', 'decoder' or 'decoder.unets.1'."""
    config: dict[str, Any]
    """Its configuration (models.py), from which `model` was built."""
    model: Any
    """dalle2-pytorch's DiffusionPrior or Decoder."""
    network: nn.Module
    """The part of `model` that is trained: the prior, or one unet."""
    measures: tuple[str, ...]
    """Names of the figures that `measure` gives."""
    image_size_px: int | None
    """Size of the pictures in a batch; None: it needs no pictures."""
    reads_words: bool

    def loss(self, batch: Batch, draws: Draws) -> torch.Tensor:
        """The mean loss of a batch, a scalar."""

    def measure(self, batch: Batch) -> dict[str, float]:
        """Figures beyond the loss, of samples from the val split."""

    def real(self, batch: Batch) -> list[Image.Image]:
        """The pictures of a batch, in the network's size; empty if it draws none."""

    def draw(self, batch: Batch) -> list[Image.Image]:
        """Pictures that the network draws from a batch; empty if it draws none."""


class Loss(nn.Module):
    """A task's loss as a module, as DistributedDataParallel wants it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self.task = task

    def forward(self, batch: Batch, draws: Draws) -> torch.Tensor:
        return self.task.loss(batch, draws)


def collate(samples: list[Sample]) -> Batch:
    """Stack the tensors; list keys and captions."""
    batch: Batch = {name: [sample[name] for sample in samples] for name in ("key", "caption")}
    for name in TENSORS:
        if name in samples[0]:
            # In a process that reads ahead, torch's own collate stacks directly into shared memory.
            batch[name] = default_collate([sample[name] for sample in samples])  # type: ignore[literal-required]
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


def part(batch: Batch, positions: range) -> Batch:
    """Those rows of a batch alone."""
    return {name: value[positions.start : positions.stop] for name, value in batch.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors on the device; pictures, which come as bytes, become float32 in 0..1, and halves float32."""
    moved: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=True)
            moved[name] = value.float().div_(255) if value.dtype == torch.uint8 else value.float()
        else:
            moved[name] = value
    return moved
