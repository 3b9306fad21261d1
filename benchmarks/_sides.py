"""The sides of a training benchmark: the same network, trained our way, by dalle2-pytorch's trainer, or barely.

    ours(case)                 the loop that `sp-data` trains with
    peer(case, "bf16")         DecoderTrainer or DiffusionPriorTrainer, fed from memory
    bare(case, switches)       forward, backward, clip, AdamW and average by torch alone: no loop can be faster

Each gives a function that trains one step, from batches that lie in memory. A `Side` is a process that keeps one such
function, so that sides take turns and none sees another's threads, accelerator or memory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.shards.tars import write_tar
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import Decoder, Prior, Training
from sp_data.recipe.training import CLIP_WORDS
from sp_data.runtime.subprocesses import die_with_parent
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.decoder import UnetTask
from sp_data.training.job import prepare
from sp_data.training.loop.loop import Loop
from sp_data.training.models import num_parameters
from sp_data.training.prior import PriorTask
from sp_data.training.seeds import seed_all
from sp_data.training.task import Batch, Task, tensor
from sp_data.training.worker import make_accelerator

Step = Callable[[], Any]
Switch = Callable[[torch.nn.Module], Any]
NUM_BATCHES = 2
"""That take turns."""
PEER = {
    "decoder": "DecoderTrainer(decoder, accelerator=Accelerator(mixed_precision={precision!r})); "
    "trainer(image, image_embed=…, unet_number={number}); trainer.update({number})",
    "prior": "DiffusionPriorTrainer(prior, accelerator=Accelerator(mixed_precision={precision!r})); "
    "trainer(text_embed=…, image_embed=…, text_encodings=…); trainer.update()",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained. `settings` is a Prior, or the Decoder whose unet `number` (from 1) it is."""

    settings: Prior | Decoder
    number: int | None
    dim: int
    device: str = "cpu"
    processes: int = 1

    @property
    def training(self) -> Training:
        return self.settings.training_of(self.number or 1) if isinstance(self.settings, Decoder) else self.settings

    def make_task(self, layout: str | None = None) -> Task:
        seed_all("weights")
        # A billion weights are drawn in a second on a GPU, in ten on a CPU.
        with torch.device(self.device):
            if isinstance(self.settings, Decoder):
                return UnetTask(self.settings, self.number or 1, self.dim, layout)
            return PriorTask(self.settings, self.dim, layout)

    def make_batch(self, task: Task, num_samples: int, seed: int = 0) -> Batch:
        """As the loop gets them: `(n, dim)` embeddings of unit length, `(n, 77, dim)` words, pictures in 0..1."""
        generator = torch.Generator().manual_seed(seed)
        embeds = torch.nn.functional.normalize(torch.randn(2, num_samples, self.dim, generator=generator), dim=-1)
        batch: Batch = {"image_embed": embeds[0].to(self.device), "text_embed": embeds[1].to(self.device)}
        if task.reads_words:
            words = torch.randn(num_samples, CLIP_WORDS, self.dim, generator=generator)
            batch["text_encodings"] = words.to(self.device)
        if task.image_size_px is not None:
            size = task.image_size_px
            batch["image"] = torch.rand(num_samples, 3, size, size, generator=generator).to(self.device)
        return batch

    def batches(self, task: Task) -> Iterator[Batch]:
        share = self.training.batch_size // self.processes
        return itertools.cycle([self.make_batch(task, share, seed) for seed in range(NUM_BATCHES)])


def import_all() -> None:
    """What every side imports: once, for processes that are forked afterwards. torch._dynamo takes longest; the first
    optimizer needs it."""
    # Their package prints when it is imported.
    with contextlib.redirect_stdout(io.StringIO()):
        import torch._dynamo  # noqa: F401

        dalle2_module()
        import dalle2_pytorch.trainer  # noqa: F401


def ours(case: Case) -> Step:
    loop = make_loop(case)
    numbers, batches = itertools.count(), case.batches(loop.task)
    return lambda: loop.step(next(numbers), next(batches))


def make_loop(case: Case, layout: str | None = None) -> Loop:
    """A loop without a dataset."""
    # Nothing is written: no step saves.
    lake = Lake(str(Path(tempfile.gettempdir()) / "sp-data-benchmark"), "none")
    task = case.make_task(layout)
    accelerator = make_accelerator(case.training, task, lake, "none")
    prepare(task, case.training)
    template = Checkpoint(
        kind=task.kind,
        unet=case.number,
        run="none",
        step=0,
        loss=0.0,
        val_loss=None,
        num_samples=0,
        dataset="",
        clip="",
        settings={},
        model=task.config,
        num_parameters=num_parameters(task.network),
        files=(),
    )
    share = case.training.batch_size // case.processes
    return Loop(task, case.training, template, lake, [], [], accelerator, share, advanced=lambda _: None)  # type: ignore[arg-type]


def peer(case: Case, precision: str) -> Step:
    """`precision` is accelerate's: 'bf16', or 'no' for float32, which is the trainers' default."""
    import_all()
    from accelerate import Accelerator
    from dalle2_pytorch.trainer import DecoderTrainer, DiffusionPriorTrainer

    task = case.make_task()
    batches = case.batches(task)
    accelerator = Accelerator(cpu=case.device == "cpu", mixed_precision=precision)
    # Both on the device before: the trainer copies the weights for its average where they are.
    task.model.to(accelerator.device)
    training = case.training
    options = {"lr": training.learning_rate, "wd": training.weight_decay, "max_grad_norm": training.max_grad_norm}
    if isinstance(task, UnetTask):
        if task.crop_px is not None:
            task.model.random_crop_sizes = (*[None] * (task.number - 1), task.crop_px)
        trainer = DecoderTrainer(task.model, accelerator=accelerator, **options)

        def step() -> Any:
            loss = trainer(unet_number=case.number, **_arguments(task, next(batches)))
            trainer.update(unet_number=case.number)
            return loss

        return step
    trainer = DiffusionPriorTrainer(task.model, accelerator=accelerator, **options)

    def step_of_prior() -> Any:
        loss = trainer(**_arguments(task, next(batches)))
        trainer.update()
        return loss

    return step_of_prior


def bare(case: Case, switches: Sequence[Switch] = (), *, as_ours: bool = False) -> Step:
    """The loss is dalle2-pytorch's own; the average and the optimizer are torch's, all weights at once.

    `as_ours`: with the switches that a training of ours turns on.
    """
    task = case.make_task()
    training = case.training
    if isinstance(task, UnetTask) and task.crop_px is not None:
        task.model.random_crop_sizes = (*[None] * (task.number - 1), task.crop_px)
    task.model.to(case.device).train()
    if as_ours:
        prepare(task, training)
    for switch in switches:
        switch(task.network)
    batches = case.batches(task)
    weights: list[torch.Tensor] = list(task.network.parameters())
    averaged = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, betas=(0.9, 0.99), fused=True)
    unet = {"unet_number": case.number} if case.number else {}
    if case.device != "cpu":
        torch.set_float32_matmul_precision("high")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(case.device, torch.bfloat16, enabled=training.precision == "bf16"):
            loss = task.model(**unet, **_arguments(task, next(batches)))
        loss.backward()
        if training.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 0.01)
        return loss.detach()

    return step


def _arguments(task: Task, batch: Batch) -> dict[str, torch.Tensor]:
    """Of dalle2-pytorch's own forward passes. The prior's scales its image embeddings in place."""
    names = ("image", "image_embed") if isinstance(task, UnetTask) else ("text_embed", "image_embed")
    arguments = {name: tensor(batch, name) for name in (*names, *(["text_encodings"] if task.reads_words else []))}
    return arguments | {"image_embed": arguments["image_embed"].clone()}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of a step."""

    wall: float
    cpu: float


class Side:
    """Processes that make a step with `make(rank)`, take a first one, and then as many as they are told."""

    def __init__(
        self,
        make: Callable[[int], Step],
        processes: int = 1,
        method: str = "fork",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is for method 'spawn', whose processes import everything anew."""
        # Of multiprocessing's contexts: each has its own Process.
        context: Any = multiprocessing.get_context(method)
        self._pipes = []
        with _environment(environment or {}):
            for rank in range(processes):
                pipe, end = context.Pipe()
                context.Process(target=_serve, args=(make, rank, end), daemon=True).start()
                end.close()
                self._pipes.append(pipe)
        self._is_ready = False

    def run(self, num_steps: int) -> Seconds:
        """The time of a step, averaged over `num_steps`; of several processes that of the slowest."""
        if not self._is_ready:
            self._receive()
            self._is_ready = True
        for pipe in self._pipes:
            pipe.send(num_steps)
        each = self._receive()
        return Seconds(max(wall for wall, _ in each) / num_steps, sum(cpu for _, cpu in each) / num_steps)

    def close(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(0)

    def _receive(self) -> list[tuple[float, float]]:
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(answer)
        return answers


def _serve(make: Callable[[int], Step], rank: int, pipe: Any) -> None:
    die_with_parent()
    try:
        step = make(rank)
        step()
        pipe.send((0.0, 0.0))
        while num_steps := pipe.recv():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(num_steps):
                step()
            pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
    except Exception:  # noqa: BLE001  # whoever waits for an answer gets it
        pipe.send(traceback.format_exc())
    # Without the parent's own clean-up.
    os._exit(0)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_dataset(lake: Lake, num_pictures: int, size_px: int, dim: int, samples_per_shard: int) -> Manifest:
    """A verified dataset of made-up pictures (100 different ones), all of them in its train split but the last shard,
    which is its val split."""
    layout = KeyLayout.of_shards(samples_per_shard)
    random = np.random.default_rng(0)
    pictures = [_picture(random, size_px) for _ in range(min(100, num_pictures))]
    num_shards = num_pictures // samples_per_shard
    listed = []
    for number in range(num_shards):
        name = layout.shard_name(number)
        paths = {"tar": f"shards/{name}.tar"}
        Path(lake.full("shards")).mkdir(parents=True, exist_ok=True)
        keys = [layout.key(number, row) for row in range(samples_per_shard)]
        samples = [
            (key, {"jpg": pictures[row % len(pictures)], "txt": f"picture {key}".encode(), "json": b"{}"})
            for row, key in enumerate(keys)
        ]
        write_tar(samples, Path(lake.full(paths["tar"])))
        for kind in ("img_emb", "text_emb"):
            paths[kind] = f"reordered/{kind}/{kind}_{name}.npy"
            rows = random.standard_normal((samples_per_shard, dim), np.float32)
            Path(lake.full(f"reordered/{kind}")).mkdir(parents=True, exist_ok=True)
            np.save(lake.full(paths[kind]), (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
        files = {name: {"path": path, "sha256": digest_of(path)} for name, path in paths.items()}
        counts = {"num_rows": samples_per_shard, "num_samples": samples_per_shard}
        split = "val" if number and number == num_shards - 1 else "train"
        listed.append({"number": number, "split": split, **counts, **files})
    details = {"layout": str(layout), "dim": dim, "clip": "made-up", "tombstones": [], "shards": listed}
    counted = Counts(in_=num_pictures, out=num_pictures)
    verified = Manifest.make(stage="verify", version=1, recipe={}, inputs={}, counts=counted, files=[], details=details)
    manifests.publish(lake, verified)
    return verified


def _picture(random: np.random.Generator, size_px: int) -> bytes:
    """Soft shapes with some grain: a JPEG of about as many bytes as a drawing's or a photograph's."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    smooth = np.array(coarse.resize((size_px, size_px), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-6, 7, (size_px, size_px, 3), np.int16)
    stream = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()
