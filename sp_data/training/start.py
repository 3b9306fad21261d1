"""The weights that a training begins with (`start: …`), and whether they or a checkpoint to resume from fit it.

Weights of another shape are refused where they are filled in (weights/fill.py). Refused here is what has the same shape
and means something else: weights for another CLIP's embeddings or another objective; to resume from, also another
model or another optimizer's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sp_data.errors import StageError
from sp_data.training.checkpoints import Checkpoint, shape
from sp_data.training.models import OLD_LAYOUT
from sp_data.training.weights.adopt import load_start

if TYPE_CHECKING:
    import torch

    from sp_data.lake import Lake
    from sp_data.training.job import TrainingJob
    from sp_data.training.task import Task


@dataclass(frozen=True, slots=True)
class Start:
    """The weights that a training begins with; empty: none."""

    name: str = ""
    weights: dict[str, torch.Tensor] | None = None
    layout: str | None = None
    """models.LAYOUT of the network that they are for."""
    config: dict[str, Any] = field(default_factory=dict)
    """What is known of that network."""


def read_start(job: TrainingJob, lake: Lake, clip: str) -> Start:
    """The weights that a job begins with. Raises StageError if they were trained on embeddings of another CLIP."""
    if job.settings.start is None:
        return Start()
    adopted, weights = load_start(lake, job.settings.start)
    if adopted.clip and adopted.clip != clip:
        raise StageError(
            f"the weights {adopted.name!r} were trained on embeddings of {adopted.clip}, and this dataset has those of "
            f"{clip}: its numbers mean something else; choose others (start: …)"
        )
    return Start(
        f"weights/{adopted.name}/{adopted.digest[:16]}",
        weights,
        OLD_LAYOUT if adopted.legacy else None,
        adopted.config or {},
    )


def check_meaning(task: Task, start: Start) -> None:
    """Raises StageError if weights of the same shapes were trained to predict something else."""
    for name in ("timesteps", "predict_v", "predict_x_start", "learned_variance", "beta_schedule"):
        before, now = start.config.get(name), task.config.get(name)
        if type(before) is type(now) and before != now:
            raise StageError(
                f"the weights {start.name.split('/')[1]!r} were trained with {name} {before}, and {task.field} has "
                f"{now}; change the recipe (objective, timesteps, learned_variance) to that of the weights"
            )


def check_resume(checkpoint: Checkpoint, template: Checkpoint) -> None:
    """Raises StageError if a training of `template` cannot resume from a checkpoint."""
    same_kind = (checkpoint.kind, checkpoint.unet) == (template.kind, template.unet)
    if not same_kind or shape(checkpoint.model) != shape(template.model):
        raise StageError(
            f"{checkpoint} is another model than the recipe's {template.kind}; --resume needs the same one"
        )
    if checkpoint.clip != template.clip:
        raise StageError(
            f"{checkpoint} was trained on embeddings of {checkpoint.clip}, and this dataset has those of "
            f"{template.clip}: its numbers mean something else; --resume needs the same CLIP"
        )
    names = ["use_8bit_adam", "lora_rank"]
    if template.settings.get("lora_rank") is not None:
        # Its matrices belong to the frozen weights beside them.
        names += ["lora_alpha", "start", "seed"]
    for name in names:
        before, now = checkpoint.settings.get(name), template.settings.get(name)
        if before != now:
            raise StageError(
                f"{checkpoint} has {name} {before}, the recipe {now}; set it back, or adopt the checkpoint "
                "(sp-data weights adopt) and begin with it (start: …)"
            )
    if template.settings.get("lora_rank") is not None and checkpoint.start != template.start:
        raise StageError(
            f"{checkpoint} belongs to the weights {checkpoint.start or 'of its seed'}, and {template.start} are "
            "others: bring those back"
        )
