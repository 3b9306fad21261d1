"""The child process that trains: `python -m sp_data.training.worker job.json`. Its output is the run's log.

It is a process of its own because it holds the GPU, because it must end with the run that started it, even if that is
killed, and because its end frees torch's memory.
"""

from __future__ import annotations

from sp_data.runtime.subprocesses import die_with_parent

if __name__ == "__main__":
    # Before the imports, which take seconds.
    die_with_parent()

import json
import logging
import sys
from pathlib import Path

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import quiet
from sp_data.dataset.loader.samples import Samples
from sp_data.errors import SpDataError, StageError
from sp_data.lake import Lake
from sp_data.manifest import Frozen, Manifest
from sp_data.recipe import Recipe
from sp_data.training.models import Kind

log = logging.getLogger("sp_data.training")

STEP = "::step "
"""Begins a line with the number of steps done."""
ERROR = "::error "
"""Begins the line with the error that ended the training, in one sentence."""


class TrainingJob(Frozen):
    """What the parent wants trained; the child reads it from a file."""

    kind: Kind
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


def train(job: TrainingJob) -> None:
    """Raises StageError if there is nothing to train on, or the checkpoint to resume from is of another model."""
    from sp_data.training import checkpoints
    from sp_data.training.checkpoints import RECORD, Checkpoint
    from sp_data.training.decoder import DecoderTask
    from sp_data.training.loop import Loop
    from sp_data.training.models import num_parameters
    from sp_data.training.prior import PriorTask
    from sp_data.training.seeds import seed_all
    from sp_data.training.task import Task

    lake = Lake(job.lake, job.recipe.name)
    verified = _verified(lake, job.dataset)
    settings = job.recipe.prior if job.kind == "prior" else job.recipe.decoder
    seed_all(settings.seed, "weights")
    task: Task
    with quiet():
        if job.kind == "prior":
            task = PriorTask(job.recipe.prior, job.recipe.embed)
        else:
            task = DecoderTask(job.recipe.decoder, job.recipe.embed)
    size = task.image_size_px
    with Samples(verified, lake, "train", size) as samples, Samples(verified, lake, "val", size) as val:
        if not len(samples):
            raise StageError(f"dataset {lake.dataset!r} has no picture in its train split; lower curate.val_share")
        template = Checkpoint(
            kind=job.kind,
            run=job.run,
            step=0,
            loss=0.0,
            val_loss=None,
            num_samples=len(samples),
            dataset=verified.digest,
            clip=str(verified.details["clip"]),
            settings=settings.identity_fields(),
            model=task.config,
            num_parameters=num_parameters(task.model),
            ancestor=job.ancestor,
            files=(),
        )
        # The parent reads these lines from the output.
        loop = Loop(task, settings, template, lake, samples, val, advanced=lambda num: print(f"{STEP}{num}"))  # noqa: T201
        start = 0
        if job.resume:
            checkpoint = checkpoints.read(lake, f"{job.resume}/{RECORD}")
            if (checkpoint.kind, checkpoints.shape(checkpoint.model)) != (
                template.kind,
                checkpoints.shape(template.model),
            ):
                raise StageError(
                    f"{checkpoint} is another model than the recipe's {job.kind}; --resume needs the same one"
                )
            loop.resume(checkpoint)
            start = checkpoint.step
        else:
            log.info(
                "%s: %s parameters, %s samples, %s steps of %s on %s",
                job.kind,
                f"{template.num_parameters:,}",
                f"{len(samples):,}",
                f"{settings.steps:,}",
                settings.batch_size,
                loop.device,
            )
        if job.forget_after is not None:
            checkpoints.forget(lake, job.run, job.forget_after)
        loop.run(start)


def _verified(lake: Lake, identity: str) -> Manifest:
    verified = manifests.load(lake, "verify", identity)
    if verified is None:
        raise StageError(f"there is no verified dataset {identity[:12]} in {lake.url}; run {lake.command('verify')}")
    return verified


def main(job_file: str) -> None:
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    try:
        train(TrainingJob.model_validate(json.loads(Path(job_file).read_text("utf-8"))))
    except SpDataError as error:
        print(f"{ERROR}{error}")  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
