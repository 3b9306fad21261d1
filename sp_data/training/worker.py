"""The child process that trains: `python -m sp_data.training.worker job.json`. Its output is the run's log.

It is a process of its own because it holds the GPU, because it must end with the run that started it, even if that is
killed, and because its end frees torch's memory.

On a CPU it divides into processes of a thread each, which are steadier beside other work than threads that wait for
each other at every operation; on several GPUs into one for each (launch.py). Several machines train together by
`accelerate launch … --module sp_data.training.worker runs/…/job.json LAKE` on each.
"""

from __future__ import annotations

from sp_data.runtime.subprocesses import die_with_parent

if __name__ == "__main__":
    # Before the imports, which take seconds.
    die_with_parent()

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sp_data import manifest as manifests
from sp_data.dataset.loader.samples import Samples
from sp_data.errors import SpDataError, StageError
from sp_data.foreign_text import OneLineFormatter
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe, Training
from sp_data.training.job import TrainingJob, make_task, prepare
from sp_data.training.launch import PATIENCE, is_launched, num_cores, num_processes, run_together

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sp_data.training.checkpoints import Checkpoint
    from sp_data.training.task import Task

log = logging.getLogger("sp_data.training")

STEP = "::step "
"""Begins a line with the number of steps done."""
ERROR = "::error "
"""Begins the line with the error that ended the training, in one sentence."""
STOPPED = "::stopped"
"""The training was told to stop, and saved."""


def train(job: TrainingJob) -> None:
    """Train in this process, which may be one of several (accelerate).

    Raises StageError if there is nothing to train on, the weights to begin with or the checkpoint to resume from are of
    another model, or the network does not fit into memory; Stopped if it was told to stop.
    """
    from sp_data.training import checkpoints
    from sp_data.training.checkpoints import RECORD
    from sp_data.training.loop.loop import Loop
    from sp_data.training.memory.micro_batch import micro_batch_size
    from sp_data.training.seeds import seed_all
    from sp_data.training.start import check_meaning, check_resume, read_start

    lake = Lake(job.lake, job.recipe.name)
    verified = verified_dataset(lake, job.dataset)
    settings = job.settings
    seed_all(settings.seed, "weights")
    start = read_start(job, lake, str(verified.details["clip"]))
    with contextlib.ExitStack() as stack:
        task = make_task(job, start.layout)
        accelerator = make_accelerator(settings, task, lake, job.run)
        if start.weights is not None:
            from sp_data.training.weights.fill import fill

            check_meaning(task, start)
            fill(task.network, start.weights, f"the weights {start.name.split('/')[1]!r}")
        train_set, val_set = _samples(task, verified, lake, job.recipe, stack, accelerator)
        if job.unet is None:
            task.mean_picture = mean_picture(train_set)  # type: ignore[attr-defined]
        template = _template(job, task, verified, len(train_set), start.name or job.ancestor)
        resume = checkpoints.read(lake, f"{job.resume}/{RECORD}") if job.resume else None
        if resume is not None:
            check_resume(resume, template)
            template = template.model_copy(update={"ancestor": job.ancestor or template.ancestor})
        prepare(task, settings)
        if accelerator.device.type == "cuda":
            from sp_data.training.switches import channels_last, compile_blocks

            if settings.channels_last:
                channels_last(task.network)
            if settings.compile:
                compile_blocks(task.network)
        size = micro_batch_size(job, task, start.layout, accelerator)
        loop = Loop(
            task,
            settings,
            template,
            lake,
            train_set,
            val_set,
            accelerator,
            size,
            # The parent reads these lines from the output.
            advanced=lambda num: print(f"{STEP}{num}"),  # noqa: T201
            told_to_stop=_told_to_stop(),
        )
        if resume is not None:
            loop.resume(resume)
        elif accelerator.is_main_process:
            log.info(
                "%s: %s parameters, %s samples, %s steps of %s on %s%s",
                task.name,
                f"{template.num_parameters:,}",
                f"{len(train_set):,}",
                f"{settings.steps:,}",
                settings.batch_size,
                loop.device,
                f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else "",
            )
        if job.forget_after is not None and accelerator.is_main_process:
            checkpoints.forget(lake, job.run, job.forget_after)
        loop.run(resume.step if resume else 0)
        for tracker in accelerator.trackers:
            tracker.finish()


def make_accelerator(settings: Training, task: Task, lake: Lake, run: str) -> Accelerator:
    """Raises StageError if there is no such device, or the network is too large for a CPU."""
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    from sp_data.training.models import choose_device

    device = choose_device(settings.device, task.network, task.kind)
    if device.type == "cuda":
        # Convolutions have the shorter products by default, matrix products do not.
        products = "ieee" if settings.precision == "fp32" else "tf32"
        torch.backends.cuda.matmul.fp32_precision = products
        torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    # TensorBoard writes to a disk.
    trackers = [name for name in settings.report_to if lake.is_local or name != "tensorboard"]
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        # Not what somebody configured for accelerate: the loop has a precision of its own.
        mixed_precision="no",
        log_with=trackers or None,
        project_dir=lake.full(f"runs/{run}") if "tensorboard" in trackers else None,
        kwargs_handlers=[
            # Which conditions a network reads depends on the recipe; their weights get no gradient.
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            ),
            # The others wait while the first process saves.
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    if trackers:
        # The name of a project of W&B, and of TensorBoard's folder in the run's.
        names = {"wandb": {"name": run, "dir": tempfile.gettempdir()}} if "wandb" in trackers else {}
        accelerator.init_trackers("sp-data" if "wandb" in trackers else "tensorboard", init_kwargs=names)
    return accelerator


def _samples(
    task: Task, verified: Manifest, lake: Lake, recipe: Recipe, stack: contextlib.ExitStack, accelerator: Accelerator
) -> tuple[Any, Any]:
    sets: list[Any] = [
        stack.enter_context(Samples(verified, lake, split, task.image_size_px)) for split in ("train", "val")
    ]
    if not len(sets[0]):
        raise StageError(f"dataset {lake.dataset!r} has no picture in its train split; lower curate.val_share")
    if not task.reads_words:
        return sets[0], sets[1]
    from sp_data.training.words import with_words

    if accelerator.is_main_process:
        encode_words(verified, lake, recipe)
    accelerator.wait_for_everyone()
    clip, dim = str(verified.details["clip"]), recipe.embed.dim
    return tuple(  # type: ignore[return-value]
        with_words(samples, split, lake, clip, verified.digest, dim, stack)
        for samples, split in zip(sets, ("train", "val"), strict=True)
    )


def mean_picture(samples: Any) -> torch.Tensor:
    """The mean image embedding `(dim,)` of a split, or of some 2,000 of its samples."""
    import torch

    stride = max(1, len(samples) // 2000)
    return torch.stack([samples[index]["image_embed"] for index in range(0, len(samples), stride)]).mean(0)


def encode_words(verified: Manifest, lake: Lake, recipe: Recipe) -> None:
    """Encode the captions of a dataset, unless the lake has them."""
    from functools import cache

    from sp_data.dataset.embed.clip import load_clip, quiet
    from sp_data.training.words import WordEncoder, keep_words

    @cache
    def encoder() -> WordEncoder:
        with quiet():
            return WordEncoder(load_clip(recipe.embed.clip_model, recipe.embed.dim))

    for split in ("train", "val"):
        with Samples(verified, lake, split) as samples:
            keep_words(samples, split, lake, str(verified.details["clip"]), verified.digest, encoder)


def _template(job: TrainingJob, task: Task, verified: Manifest, num_samples: int, ancestor: str) -> Checkpoint:
    from sp_data.training.checkpoints import Checkpoint
    from sp_data.training.models import num_parameters

    return Checkpoint(
        kind=job.kind,
        unet=job.unet,
        run=job.run,
        step=0,
        loss=0.0,
        val_loss=None,
        num_samples=num_samples,
        dataset=verified.digest,
        clip=str(verified.details["clip"]),
        settings=job.identity_fields,
        model=task.config,
        num_parameters=num_parameters(task.network),
        ancestor=ancestor,
        start=ancestor if ancestor.startswith("weights/") else "",
        files=(),
    )


def verified_dataset(lake: Lake, identity: str) -> Manifest:
    verified = manifests.load(lake, "verify", identity)
    if verified is None:
        raise StageError(f"there is no verified dataset {identity[:12]} in {lake.url}; run {lake.command('verify')}")
    return verified


_stop_asked = False


def _told_to_stop() -> Any:
    return lambda: _stop_asked


def _ask_to_stop(*_: object) -> None:
    global _stop_asked
    _stop_asked = True


def main(job_file: str, lake: str = "") -> None:
    """`lake`: its URL, where the job does not say it."""
    lines = logging.StreamHandler(sys.stdout)
    # Whoever started this process reads it line by line.
    lines.setFormatter(OneLineFormatter("%(message)s"))
    logging.basicConfig(handlers=[lines], level=logging.INFO)
    job = TrainingJob.model_validate(json.loads(Path(job_file).read_text("utf-8")))
    if lake:
        job = job.model_copy(update={"lake": lake})
    if is_launched():
        run(job)
        return
    try:
        processes = num_processes(job.settings, job.field)
    except SpDataError as error:
        _tell(error)
    if processes > 1:
        run_together(partial(run, job), job.settings, processes)
        return
    import torch

    torch.set_num_threads(num_cores())
    run(job)


def _tell(error: SpDataError) -> NoReturn:
    """End this process with an error that the parent raises."""
    print(f"{ERROR}{error}", flush=True)  # noqa: T201
    sys.exit(1)


def run(job: TrainingJob) -> None:
    """Train, and say how it ended as the parent reads it."""
    from sp_data.training.loop.loop import Stopped

    signal.signal(signal.SIGTERM, _ask_to_stop)
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        logging.getLogger().setLevel(logging.ERROR)
    try:
        train(job)
    except Stopped:
        if is_first:
            print(STOPPED)  # noqa: T201
    except SpDataError as error:
        _tell(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
