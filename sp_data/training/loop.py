"""The training loop: step after step, with averaged weights and a checkpoint every `save_every` steps.

The samples, noise and times of a step depend only on the step's number and the seed. So a run that was killed and
resumed has, on a CPU, the losses of an undisturbed one, bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from ema_pytorch import EMA
from torch.utils.data import DataLoader

from sp_data.dataset.loader.samples import Samples
from sp_data.errors import StageError
from sp_data.lake import Lake
from sp_data.recipe import Training
from sp_data.runtime.contact_sheet import contact_sheet
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.metrics import Metrics
from sp_data.training.models import choose_device
from sp_data.training.sampler import Batches
from sp_data.training.seeds import seed_all
from sp_data.training.task import Batch, Task, collate, to_device

log = logging.getLogger(__name__)

EMA_POWER = 2 / 3
"""The average's decay grows as 1 - (1 + step)^-2/3 up to `ema_decay`: 0.95 after 100 steps, 0.99 after 1,000."""
MAX_VAL_SAMPLES = 512
VAL_DRAWS = 4
"""How often noise and times are drawn for each validation sample; they are the same each time."""
BETAS = (0.9, 0.99)


@dataclass(slots=True)
class Loop:
    """One training. `template` is its checkpoint, without step, losses and files."""

    task: Task
    settings: Training
    template: Checkpoint
    lake: Lake
    train: Samples
    val: Samples
    advanced: Callable[[int], None]
    """Called after each step with the number of steps done."""
    device: torch.device = field(init=False)
    ema: EMA = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.device = choose_device(self.settings.device, self.task.model, self.task.kind)
        self.task.model.to(self.device)
        self.ema = EMA(
            self.task.model,
            beta=self.settings.ema_decay,
            power=EMA_POWER,
            update_after_step=0,
            update_every=1,
            include_online_model=False,
            use_foreach=True,
        )
        self.optimizer = torch.optim.AdamW(
            self.task.model.parameters(),
            lr=self.settings.learning_rate,
            betas=BETAS,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        self.metrics = Metrics(self.lake, self.template.run)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint. Raises CorruptFile."""
        checkpoints.restore(self.lake, checkpoint, self.task.model, self.ema, self.optimizer)
        self.metrics = Metrics.resumed(self.lake, self.template.run, checkpoint.step)

    def run(self, start: int) -> None:
        """Train from step `start` to the last, with a checkpoint on the way and at the end."""
        losses = RunningMean()
        begun, logged_at = time.monotonic(), start
        for step, batch in enumerate(self._batches(start), start=start):
            losses.add(self._step(step, to_device(batch, self.device)))
            num_done = step + 1
            self.advanced(num_done)
            saving = num_done % self.settings.save_every == 0 or num_done == self.settings.steps
            if not (saving or num_done % self.settings.log_every == 0):
                continue
            row: dict[str, Any] = {
                "step": num_done,
                "loss": losses.take(),
                "learning_rate": learning_rate(step, self.settings),
                "samples_per_second": round(
                    (num_done - logged_at) * self.settings.batch_size / (time.monotonic() - begun), 1
                ),
            }
            if saving:
                row |= self._evaluate()
            self._check(row)
            self.metrics.write(row)
            log.info("%s", _line(self.task.kind, row, self.settings.steps))
            if saving:
                self._save(row)
            begun, logged_at = time.monotonic(), num_done

    def _batches(self, start: int) -> Iterator[Batch]:
        order = Batches(
            start * self.settings.batch_size,
            self.settings.steps * self.settings.batch_size,
            num_samples=len(self.train),
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
        )
        # Its own generator: otherwise the loader draws its base seed from the global one, which would change the run.
        loader: DataLoader[Any] = DataLoader(
            self.train,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=self.settings.loader_processes,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
        )
        yield from loader

    def _step(self, step: int, batch: Batch) -> float:
        seed_all(self.settings.seed, "step", step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.settings)
        self.task.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        losses = self.task.losses(self.task.model, batch)
        while True:
            with self._autocast():
                loss = next(losses, None)
            if loss is None:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.task.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.ema.update()
        return float(total)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    @torch.inference_mode()
    def _evaluate(self) -> dict[str, float]:
        """Validation loss of the averaged weights, at fixed noise and times, and the task's own figures."""
        if not len(self.val):
            return {}
        model = self.ema.ema_model.eval()
        total, count = 0.0, 0
        figures: dict[str, float] = {}
        for number, indices in enumerate(_in_batches(min(len(self.val), MAX_VAL_SAMPLES), self.settings.batch_size)):
            batch = to_device(collate([self.val[index] for index in indices]), self.device)
            seed_all("validation", number)
            with self._autocast():
                for _ in range(VAL_DRAWS):
                    total += len(indices) * sum(float(loss) for loss in self.task.losses(model, batch)) / VAL_DRAWS
                if number == 0:
                    figures = self.task.measure(model, batch)
            count += len(indices)
        return {"val_loss": total / count, **figures}

    def _check(self, row: dict[str, Any]) -> None:
        """End a training that diverged, before it is saved. Raises StageError."""
        if not all(math.isfinite(row[name]) for name in ("loss", "val_loss") if name in row):
            kind = self.task.kind
            raise StageError(
                f"the loss of the {kind} is no number any more at step {row['step']:,}; lower {kind}.learning_rate, or "
                f"raise {kind}.warmup_steps"
            )

    def _save(self, row: dict[str, Any]) -> None:
        measured = {name: value for name, value in row.items() if name in self.task.measures}
        fields = {"step": row["step"], "loss": row["loss"], "val_loss": row.get("val_loss"), "measured": measured}
        saved = checkpoints.save(
            self.lake, self.template.model_copy(update=fields), self.task.model, self.ema, self.optimizer
        )
        self._show(saved)
        checkpoints.prune(self.lake, saved.run, self.settings.keep_checkpoints)
        log.info("%s: checkpoint %s", self.task.kind, saved.folder)

    @torch.inference_mode()
    def _show(self, saved: Checkpoint) -> None:
        if not len(self.val):
            return
        count = min(len(self.val), self.settings.batch_size)
        batch = to_device(collate([self.val[index] for index in range(count)]), self.device)
        seed_all("pictures")
        with self._autocast():
            pictures = self.task.pictures(self.ema.ema_model.eval(), batch)
        if pictures:
            sheet = contact_sheet(pictures, columns=len(pictures) // 2)
            self.lake.write_bytes(samples_path(saved.run, saved.step), sheet)


def samples_path(run: str, step: int) -> str:
    """A JPEG: real pictures of the val split; below each, the picture drawn from its embedding."""
    return f"runs/{run}/samples/step-{step:08d}.jpg"


def learning_rate(step: int, settings: Training) -> float:
    """The learning rate at a step (from 0): rising to `learning_rate` over the warm-up, then as `schedule` says."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    decay = 1.0 - step / settings.steps if settings.schedule == "linear" else 1.0
    return settings.learning_rate * warmup * decay


def _in_batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


@dataclass(slots=True)
class RunningMean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    def take(self) -> float:
        """The mean so far; resets it."""
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        return mean


def _line(kind: str, row: dict[str, Any], steps: int) -> str:
    figures = "".join(f", {name} {row[name]:.4f}" for name in ("val_loss", "cosine", "cosine_other") if name in row)
    return (
        f"{kind}: step {row['step']:,} of {steps:,}, loss {row['loss']:.4f}{figures}, "
        f"{row['samples_per_second']:,.0f} samples/s"
    )
