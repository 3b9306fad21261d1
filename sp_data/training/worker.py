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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sp_data import manifest as manifests
from sp_data.dataset.loader.samples import Samples
from sp_data.errors import SpDataError, StageError
from sp_data.lake import Lake
from sp_data.manifest import Frozen, Manifest
from sp_data.recipe import Recipe, Training
from sp_data.recipe.training import CLIP_WORDS
from sp_data.training.launch import PATIENCE, is_launched, num_cores, num_processes, run_together
from sp_data.training.models import Kind

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sp_data.training.checkpoints import Checkpoint
    from sp_data.training.memory import Memory
    from sp_data.training.task import Batch, Task

log = logging.getLogger("sp_data.training")

STEP = "::step "
"""Begins a line with the number of steps done."""
ERROR = "::error "
"""Begins the line with the error that ended the training, in one sentence."""
STOPPED = "::stopped"
"""The training was told to stop, and saved."""
SMALL_PARAMETERS, SMALL_PX = 20_000_000, 64
"""On a CPU, the memory of networks and pictures up to these sizes is not worked out before the training."""


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


def train(job: TrainingJob) -> None:
    """Train in this process, which may be one of several (accelerate).

    Raises StageError if there is nothing to train on, the weights to begin with or the checkpoint to resume from are of
    another model, or the network does not fit into memory; Stopped if it was told to stop.
    """
    from sp_data.training import checkpoints
    from sp_data.training.checkpoints import RECORD
    from sp_data.training.loop import Loop
    from sp_data.training.seeds import seed_all

    lake = Lake(job.lake, job.recipe.name)
    verified = verified_dataset(lake, job.dataset)
    settings = job.settings
    seed_all(settings.seed, "weights")
    start = _start(job, lake, str(verified.details["clip"]))
    with contextlib.ExitStack() as stack:
        task = make_task(job, start.layout)
        accelerator = make_accelerator(settings, task, lake, job.run)
        if start.weights is not None:
            from sp_data.training.weights.fill import fill

            _check_meaning(task, start)
            fill(task.network, start.weights, f"the weights {start.name.split('/')[1]!r}")
        train_set, val_set = _samples(task, verified, lake, job.recipe, stack, accelerator)
        if job.unet is None:
            task.mean_picture = mean_picture(train_set)  # type: ignore[attr-defined]
        template = _template(job, task, verified, len(train_set), start.name or job.ancestor)
        resume = checkpoints.read(lake, f"{job.resume}/{RECORD}") if job.resume else None
        if resume is not None:
            _check_resume(resume, template)
            template = template.model_copy(update={"ancestor": job.ancestor or template.ancestor})
        prepare(task, settings)
        if accelerator.device.type == "cuda":
            from sp_data.training.switches import channels_last, compile_blocks

            if settings.channels_last:
                channels_last(task.network)
            if settings.compile:
                compile_blocks(task.network)
        size = _micro_batch_size(job, task, start.layout, accelerator)
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


@dataclass(frozen=True, slots=True)
class Start:
    """The weights that a training begins with; empty: none."""

    name: str = ""
    weights: dict[str, torch.Tensor] | None = None
    layout: str | None = None
    """models.LAYOUT of the network that they are for."""
    config: dict[str, Any] = field(default_factory=dict)
    """What is known of that network."""


def _start(job: TrainingJob, lake: Lake, clip: str) -> Start:
    if job.settings.start is None:
        return Start()
    from sp_data.training.models import OLD_LAYOUT
    from sp_data.training.weights.adopt import load_start

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


def _check_meaning(task: Task, start: Start) -> None:
    """Raises StageError if weights of the same shapes were trained to predict something else."""
    for name in ("timesteps", "predict_v", "predict_x_start", "learned_variance", "beta_schedule"):
        before, now = start.config.get(name), task.config.get(name)
        if type(before) is type(now) and before != now:
            raise StageError(
                f"the weights {start.name.split('/')[1]!r} were trained with {name} {before}, and {task.field} has "
                f"{now}; change the recipe (objective, timesteps, learned_variance) to that of the weights"
            )


def make_task(job: TrainingJob, layout: str | None = None) -> Task:
    from sp_data.training.decoder import UnetTask
    from sp_data.training.prior import PriorTask

    if job.unet is None:
        return PriorTask(job.recipe.prior, job.recipe.embed.dim, layout)
    return UnetTask(job.recipe.decoder, job.unet, job.recipe.embed.dim, layout)


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


def memory_of(job: TrainingJob, layout: str | None, device: str) -> Memory:
    """What a step of a job takes with one picture at a time, by fake tensors."""
    import torch

    from sp_data.training.draws import FakeDraws
    from sp_data.training.memory import estimate

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


def _micro_batch_size(job: TrainingJob, task: Task, layout: str | None, accelerator: Accelerator) -> int:
    """Pictures at a time in each process. Raises StageError if not even one fits."""
    from sp_data.training.memory import available_bytes, choose_micro_batch, sentence
    from sp_data.training.models import num_parameters

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


def _check_resume(checkpoint: Checkpoint, template: Checkpoint) -> None:
    """Raises StageError if a training of `template` cannot resume from a checkpoint."""
    from sp_data.training.checkpoints import shape

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
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
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
    from sp_data.training.loop import Stopped

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
