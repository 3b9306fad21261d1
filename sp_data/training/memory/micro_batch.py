"""The micro-batch of a job: how many pictures each process computes at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from sp_data.recipe.training import CLIP_WORDS
from sp_data.training.draws import FakeDraws
from sp_data.training.job import TrainingJob, make_task, prepare
from sp_data.training.memory.estimate import Memory, choose_micro_batch, estimate, sentence
from sp_data.training.memory.free import available_bytes
from sp_data.training.models import num_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sp_data.training.task import Batch, Task

log = logging.getLogger("sp_data.training")

SMALL_PARAMETERS, SMALL_PX = 20_000_000, 64
"""On a CPU, the memory of networks and pictures up to these sizes is not worked out before the training."""


def memory_of(job: TrainingJob, layout: str | None, device: str) -> Memory:
    """What a step of a job takes with one picture at a time, by fake tensors."""
    tasks: list[Task] = []

    def build() -> torch.nn.Module:
        task = make_task(job, layout)
        prepare(task, job.settings)
        tasks.append(task)
        return task.network

    def loss(_: torch.nn.Module, num_pictures: int) -> torch.Tensor:
        dim = job.recipe.embed.dim
        batch: Batch = {
            "image_embed": torch.zeros(num_pictures, dim),
            "text_embed": torch.zeros(num_pictures, dim),
            "text_encodings": torch.zeros(num_pictures, CLIP_WORDS, dim),
        }
        if tasks[-1].image_size_px is not None:
            size = int(tasks[-1].config["image_size"])
            batch["image"] = torch.zeros(num_pictures, 3, size, size)
        return tasks[-1].loss(batch, FakeDraws(num_pictures))

    return estimate(
        build,
        loss,
        micro_batch_size=1,
        precision=job.settings.precision,
        use_8bit_adam=job.settings.use_8bit_adam,
        trainable=lambda network: [weight for weight in network.parameters() if weight.requires_grad],
        device=device,
    )


def micro_batch_size(job: TrainingJob, task: Task, layout: str | None, accelerator: Accelerator) -> int:
    """Pictures at a time in each process. Raises StageError if not even one fits."""
    settings, processes = job.settings, int(accelerator.num_processes)
    share = -(-settings.batch_size // processes)
    device = accelerator.device
    small = num_parameters(task.network) < SMALL_PARAMETERS and (task.image_size_px or 0) <= SMALL_PX
    if device.type == "cpu" and small:
        # Far from filling any memory; to work it out would take longer than the first steps.
        return share if settings.micro_batch_size == "auto" else min(share, settings.micro_batch_size)
    available = available_bytes(device)
    if device.type == "cpu":
        available //= processes
    memory = memory_of(job, layout, device.type)
    asked = settings.micro_batch_size
    size = choose_micro_batch(memory, available, name=task.field, batch_size=share, requested=asked)
    if accelerator.is_main_process:
        log.info("%s: %s", task.name, sentence(memory.at(size), available, name=task.field, batch_size=share))
    return size
