"""What the child process trains: a job, the task made of it, and its network prepared for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sp_data.manifest import Frozen
from sp_data.recipe import Recipe, Training
from sp_data.training.models import Kind

if TYPE_CHECKING:
    from sp_data.training.task import Task


class TrainingJob(Frozen):
    """What the parent wants trained; the child reads it from a file."""

    kind: Kind
    unet: int | None = None
    """Of a decoder: which of its unets, from 1."""
    recipe: Recipe
    lake: str
    dataset: str
    """Identity of the verified dataset's manifest."""
    run: str
    resume: str | None
    """Folder in the lake of the checkpoint to resume from."""
    forget_after: int | None
    """After restoring it, remove this run's checkpoints beyond this step."""
    ancestor: str
    """The `ancestor` of the run's checkpoints."""

    @property
    def settings(self) -> Training:
        return self.recipe.prior if self.unet is None else self.recipe.decoder.training_of(self.unet)

    @property
    def field(self) -> str:
        """Where the recipe sets it."""
        return "prior" if self.unet is None else f"decoder.unets.{self.unet - 1}"

    @property
    def identity_fields(self) -> dict[str, Any]:
        """What of the recipe names these weights."""
        recipe = self.recipe
        return recipe.prior.identity_fields() if self.unet is None else recipe.decoder.unet_identity_fields(self.unet)


def make_task(job: TrainingJob, layout: str | None = None) -> Task:
    from sp_data.training.decoder import UnetTask
    from sp_data.training.prior import PriorTask

    if job.unet is None:
        return PriorTask(job.recipe.prior, job.recipe.embed.dim, layout)
    return UnetTask(job.recipe.decoder, job.unet, job.recipe.embed.dim, layout)


def prepare(task: Task, settings: Training) -> None:
    """What the recipe changes in a network before it is trained."""
    from sp_data.training.switches import fused_attention, fused_norms

    if settings.lora_rank is not None:
        from sp_data.training.lora import add_lora

        add_lora(task.network, settings.lora_rank, settings.lora_alpha)
    if settings.gradient_checkpointing and task.kind == "decoder":
        # The prior has no such switch in dalle2-pytorch; it is small.
        task.network.checkpoint_during_training = True  # type: ignore[assignment]
    fused_attention(task.network)
    fused_norms(task.network)
