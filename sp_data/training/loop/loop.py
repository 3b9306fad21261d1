"""The training loop: step after step, with averaged weights and a checkpoint every `save_every` steps.

The samples and random numbers of a step depend only on the step's number and the seed, and are those of the whole
batch, however it is split over micro-batches and processes. So a run that was killed and resumed has, on a CPU and with
as many processes, the losses of an undisturbed one, bit for bit.

Of several processes (accelerate) each takes its share of every batch; gradients are averaged while they are computed.
The first one writes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sp_data.dataset.loader.samples import Sample
from sp_data.errors import CorruptFile, StageError, reason_of
from sp_data.lake import Lake
from sp_data.recipe import Training
from sp_data.training import checkpoints, grid, lora
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.draws import Draws
from sp_data.training.loop.average import Average
from sp_data.training.loop.early_stopping import is_exhausted
from sp_data.training.loop.metrics import Metrics
from sp_data.training.loop.optimizer import learning_rate, make_optimizer, restore_optimizer
from sp_data.training.loop.sampler import Batches
from sp_data.training.seeds import number_of, seed_all
from sp_data.training.task import Batch, Loss, Task, captions, collate, part, to_device

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

VAL_DRAWS = 4
"""How often noise and times are drawn for each validation sample; they are the same each time."""
NUM_PICTURES = 8
"""Columns of the grid."""
STEPS_BETWEEN_QUESTIONS = 16
"""How often several GPUs ask each other whether one was told to stop, which makes them wait for each other."""


class Stopped(Exception):
    """The training was told to stop; it saved first."""


@dataclass(slots=True)
class Loop:
    """One training. `template` is its checkpoint, without step, losses and files."""

    task: Task
    settings: Training
    template: Checkpoint
    lake: Lake
    train: Dataset[Sample]
    val: Dataset[Sample]
    accelerator: Accelerator
    micro_batch_size: int
    """Pictures at a time in each process."""
    advanced: Callable[[int], None]
    """Called after each step with the number of steps done."""
    told_to_stop: Callable[[], bool] = lambda: False
    average: Average = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    metrics: Metrics = field(init=False)
    loss: torch.nn.Module = field(init=False)
    rows: range = field(init=False)
    """The rows of each batch that this process takes."""
    val_indices: list[int] = field(init=False)

    def __post_init__(self) -> None:
        state = self.accelerator.state
        self.rows = range(state.process_index, self.settings.batch_size, state.num_processes)
        self.task.model.to(self.device)
        self.average = Average(self.task.network, self.settings.ema_decay)
        self.optimizer = make_optimizer(self.settings, self.task.network.parameters())
        self.loss = self.accelerator.prepare_model(Loss(self.task))
        self.metrics = Metrics(self.lake, self.template.run)
        self.val_indices = self._chosen_val()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint. Raises CorruptFile."""
        state = checkpoints.load_state(self.lake, checkpoint)
        network = self.task.network
        try:
            if self.settings.lora_rank is None:
                checkpoints.load_weights(self.lake, checkpoint, network)
                averaged = {name: weight.detach().clone() for name, weight in network.named_parameters()}
                network.load_state_dict(state["weights"])
            else:
                averaged = state["average"]
                # The frozen weights are those of the start, which are loaded already.
                missing, unknown = network.load_state_dict(state["weights"], strict=False)
                if unknown or any(".lora_" in name for name in missing):
                    raise ValueError(f"its LoRA has other weights, such as {[*unknown, *missing][0]}")
            self.average.load(averaged, state["num_updates"])
            restore_optimizer(self.optimizer, state["optimizer"])
        except CorruptFile:
            raise
        except Exception as error:
            # What a state holds decides what torch stumbles over.
            raise CorruptFile(
                f"{self.lake.full(checkpoint.folder)} does not hold what this training resumes from "
                f"({reason_of(ValueError((str(error).splitlines() or ['?'])[0]))}); delete its folder"
            ) from error
        if self.writes:
            # Of this run; a run that begins with another's checkpoint has no lines yet.
            step = checkpoint.step if checkpoint.run == self.template.run and not checkpoint.place else 0
            self._cut_back(step)

    def _cut_back(self, step: int) -> None:
        """Take back what the run noted after a step: it will be noted again."""
        self.metrics = Metrics.resumed(self.lake, self.template.run, step)
        grid.cut_back(self.lake, self.template.run, step)

    def run(self, start: int) -> None:
        """Train from step `start` to the last, with a checkpoint on the way and at the end.

        Raises Stopped after it has saved, if it is told to stop; StageError if the loss is no number any more.
        """
        if start == 0 and self.writes:
            # A run that was killed before its first checkpoint begins anew.
            self._cut_back(0)
        if self._is_exhausted(start):
            return
        total, num_summed = torch.zeros((), device=self.device), 0
        begun, logged_at = time.monotonic(), start
        for step, batch in enumerate(self._batches(start), start=start):
            total += self.step(step, to_device(batch, self.device))
            num_summed += 1
            num_done = step + 1
            if self.writes:
                self.advanced(num_done)
            stopping = self._is_stopping(num_done)
            saving = stopping or num_done % self.settings.save_every == 0 or num_done == self.settings.steps
            if not (saving or num_done % self.settings.log_every == 0):
                continue
            row: dict[str, Any] = {
                "step": num_done,
                "loss": float(self._summed(total)) / num_summed,
                "learning_rate": learning_rate(step, self.settings),
                "samples_per_second": round(
                    (num_done - logged_at) * self.settings.batch_size / (time.monotonic() - begun), 1
                ),
            }
            if saving and not stopping:
                # Whoever stops it does not wait for long.
                row |= self._evaluate()
            self._check(row)
            if self.writes:
                self._write(row)
            if saving:
                if self.writes:
                    self._save(row)
                # Nobody begins a step that the others may never come to.
                self.accelerator.wait_for_everyone()
            if stopping:
                raise Stopped
            if saving and self._is_exhausted(num_done):
                return
            total.zero_()
            num_summed, begun, logged_at = 0, time.monotonic(), num_done

    def _batches(self, start: int) -> Iterator[Batch]:
        state = self.accelerator.state
        order = Batches(
            start * self.settings.batch_size,
            self.settings.steps * self.settings.batch_size,
            num_samples=len(self.train),  # type: ignore[arg-type]
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            rank=state.process_index,
            world_size=state.num_processes,
        )
        # Its own generator: otherwise the loader draws its base seed from the global one, which would change the run.
        loader: DataLoader[Any] = DataLoader(
            self.train,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=self.settings.loader_processes,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
            worker_init_fn=_outlive_the_stop,
        )
        yield from loader

    def step(self, step: int, batch: Batch) -> torch.Tensor:
        """One step; gives this process's share of the loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.settings)
        self.loss.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = self.backward(batch, step)
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.task.network.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.average.update()
        return total

    def backward(self, batch: Batch, step: int) -> torch.Tensor:
        """Add the gradients of this process's rows of a batch; gives their share of the loss, on the device."""
        num_processes = int(self.accelerator.state.num_processes)
        draws = Draws((self.settings.seed, "step", step), self.settings.batch_size, self.rows, self.device)
        # For dropout inside the networks.
        seed_all(self.settings.seed, "step", step, self.rows.start)
        total = torch.zeros((), device=self.device)
        parts = list(_in_batches(len(self.rows), self.micro_batch_size))
        for positions in parts:
            is_last = positions is parts[-1]
            context = contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.loss)
            with context:
                with self._autocast():
                    loss = self.loss(part(batch, positions), draws.part(positions))
                # Processes average their gradients, and may have different numbers of rows.
                share = loss * (len(positions) * num_processes / self.settings.batch_size)
                share.backward()
            total += share.detach() / num_processes
        return total

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _summed(self, value: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.accelerator.reduce(value, "sum")
        return summed

    def _is_stopping(self, num_done: int) -> bool:
        told = self.told_to_stop()
        if self.accelerator.state.num_processes == 1:
            return told
        if self.device.type == "cuda" and num_done % STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(self._summed(torch.tensor(float(told), device=self.device)) > 0)

    def _chosen_val(self) -> list[int]:
        """The samples of the val split that are evaluated, the same each time."""
        num_val = len(self.val)  # type: ignore[arg-type]
        wanted = self.settings.validation_samples
        if wanted is None or wanted >= num_val:
            return list(range(num_val))
        chosen = np.random.default_rng(number_of(self.settings.seed, "validation")).permutation(num_val)[:wanted]
        return sorted(chosen.tolist())

    def _val_batch(self, positions: range) -> Batch:
        return to_device(collate([self.val[self.val_indices[position]] for position in positions]), self.device)

    def _evaluate(self) -> dict[str, float]:
        """Validation loss of the averaged weights, at fixed noise and times, and the task's own figures."""
        if not self.val_indices:
            return {}
        state = self.accelerator.state
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        figures: dict[str, float] = {}
        self.task.model.eval()
        parts = list(_in_batches(len(self.val_indices), min(self.micro_batch_size, self.settings.batch_size)))
        with self.average.in_place(), torch.inference_mode():
            for number, positions in enumerate(parts):
                if number % state.num_processes != state.process_index:
                    continue
                batch = self._val_batch(positions)
                for draw in range(VAL_DRAWS):
                    draws = Draws.for_samples(("validation", draw), positions, self.device)
                    with self._autocast():
                        total += len(positions) * self.task.loss(batch, draws) / VAL_DRAWS
            if self.writes:
                seed_all("measure")
                count = min(len(self.val_indices), self.settings.batch_size)
                with self._autocast():
                    figures = self.task.measure(self._val_batch(range(count))) if self.task.measures else {}
        return {"val_loss": float(self._summed(total)) / len(self.val_indices), **figures}

    def _check(self, row: dict[str, Any]) -> None:
        """End a training that diverged, before it is saved. Raises StageError."""
        if not all(math.isfinite(row[name]) for name in ("loss", "val_loss") if name in row):
            raise self._diverged("the loss", row["step"])

    def _diverged(self, what: str, step: int) -> StageError:
        return StageError(
            f"{what} of the {self.task.name} is no number any more at step {step:,}; lower "
            f"{self.task.field}.learning_rate, or raise {self.task.field}.lr_warmup_steps"
        )

    def _is_exhausted(self, step: int) -> bool:
        """Whether the validation loss has not fallen for as many evaluations as the recipe waits."""
        patience = self.settings.early_stopping_patience
        answer = is_exhausted(self.metrics.rows, patience, step)
        # The first process has the metrics.
        if self.accelerator.state.num_processes > 1 and patience is not None:
            answer = bool(self._summed(torch.tensor(float(answer and self.writes), device=self.device)) > 0)
        if answer and self.writes:
            log.info(
                "%s: stops at step %s: the validation loss has not fallen for %s evaluations",
                self.task.name,
                f"{step:,}",
                patience,
            )
        return answer

    def _write(self, row: dict[str, Any]) -> None:
        self.metrics.write(row)
        if self.accelerator.trackers:
            self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])
        log.info("%s", _line(self.task.name, row, self.settings.steps))

    def _save(self, row: dict[str, Any]) -> None:
        measured = {name: value for name, value in row.items() if name in self.task.measures}
        fields = {"step": row["step"], "loss": row["loss"], "val_loss": row.get("val_loss"), "measured": measured}
        weights, state = self._state(row["step"])
        # The last step's gradients show in no loss yet.
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise self._diverged("a weight", row["step"])
        saved = checkpoints.save(self.lake, self.template.model_copy(update=fields), weights, state)
        if "val_loss" in row:
            self._show(saved)
        checkpoints.prune(self.lake, saved.run, self.settings.checkpoints_total_limit)
        log.info("%s: checkpoint %s", self.task.name, saved.folder)

    def _state(self, step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What a checkpoint holds: the averaged weights of the whole network, and what the loop resumes from."""
        network = self.task.network
        state: dict[str, Any] = {
            "step": step,
            "num_updates": self.average.num_updates,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.settings.lora_rank is None:
            state["weights"] = _copied(network.state_dict())
            with self.average.in_place():
                return _copied(network.state_dict()), state
        state["weights"] = {name: value for name, value in network.state_dict().items() if ".lora_" in name}
        state["average"] = self.average.state()
        with self.average.in_place():
            return _copied(lora.whole_weights(network)), state

    def _show(self, saved: Checkpoint) -> None:
        """Add a row to the grid of pictures: fixed embeddings from the val split, fixed noise."""
        if not self.val_indices:
            return
        count = min(len(self.val_indices), NUM_PICTURES)
        batch = self._val_batch(range(count))
        self.task.model.eval()
        drawn: list[Image.Image] = []
        with self.average.in_place(), torch.inference_mode(), self._autocast():
            for positions in _in_batches(count, min(count, self.micro_batch_size)):
                seed_all("pictures", positions.start)
                drawn += self.task.draw(part(batch, positions))
        if drawn:
            if not self.lake.exists(grid.row_path(saved.run, None)):
                grid.keep_row(self.lake, saved.run, None, self.task.real(batch))
            grid.keep_row(self.lake, saved.run, saved.step, drawn)
            grid.draw_grid(self.lake, saved.run, captions(batch))


def _outlive_the_stop(_: int) -> None:
    """A process that reads ahead is told to stop with the others; the loop needs it until it has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def _in_batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


def _line(name: str, row: dict[str, Any], steps: int) -> str:
    figures = "".join(f", {name} {row[name]:.4f}" for name in ("val_loss", "cosine", "cosine_other") if name in row)
    return (
        f"{name}: step {row['step']:,} of {steps:,}, loss {row['loss']:.4f}{figures}, "
        f"{row['samples_per_second']:,.0f} samples/s"
    )
