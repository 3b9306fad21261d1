"""Checkpoints: all that a killed training needs to go on, and all that a picture needs to be made.

    runs/decoder-1f0c55ab/checkpoints/step-00000500/
      weights.safetensors    the averaged (EMA) weights: what generates
      state.pt               the trained weights, the optimizer, the average's age: what goes on
      checkpoint.json        step, losses, dataset, model: published last, so it is whole or not there

Nothing random is kept: the order of samples, noise and times are functions of (seed, step).
"""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from ema_pytorch import EMA
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sp_data.errors import CorruptFile, UsageError
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Frozen, missing_files
from sp_data.training.models import Kind

RECORD = "checkpoint.json"
WEIGHTS = "weights.safetensors"
STATE = "state.pt"


class Checkpoint(Frozen):
    kind: Kind
    run: str
    """The folder below runs/, such as 'decoder-1f0c55ab'."""
    step: int
    """Steps done."""
    loss: float
    """Of the training, averaged over the steps since the last line."""
    val_loss: float | None
    """Of the averaged weights on the val split, at fixed noise and times; None without a val split."""
    num_samples: int
    """In the training split."""
    dataset: str
    """Digest of the verified dataset."""
    clip: str
    """Folder of the CLIP whose embeddings were learnt, with its digest."""
    settings: dict[str, Any]
    """The part of the recipe."""
    model: dict[str, Any]
    """dalle2-pytorch's configuration."""
    num_parameters: int
    measured: dict[str, float] = Field(default_factory=dict)
    """Of the averaged weights, beside the loss: the prior's cosines."""
    ancestor: str = ""
    """The checkpoint of another run that this run began with (its `name`), if it did not begin anew."""
    files: tuple[FileEntry, ...]

    @property
    def folder(self) -> str:
        return f"runs/{self.run}/checkpoints/step-{self.step:08d}"

    @property
    def digest(self) -> str:
        """sha256 of the weights that generate."""
        return next(entry.sha256 for entry in self.files if entry.path.endswith(WEIGHTS))

    @property
    def name(self) -> str:
        """Names these very weights: run, step and digest."""
        return f"{self.run}/step-{self.step:08d}/{self.digest[:16]}"

    def __str__(self) -> str:
        return f"{self.run} step {self.step:,}"


def save(
    lake: Lake, checkpoint: Checkpoint, model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """Publish a checkpoint: its record last. Returns it with its files."""
    with lake.scratch("checkpoint") as folder:
        # Tensors that layers share are written once for each: save_model's list of them is in no certain order, and
        # equal weights shall be equal bytes.
        weights = {
            name: value.detach().cpu().clone().contiguous() for name, value in ema.ema_model.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS)
        state = {
            "step": checkpoint.step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema_step": int(ema.step.item()),
        }
        torch.save(state, folder / STATE)
        for name in (WEIGHTS, STATE):
            # On the disk before the record that says so.
            with (folder / name).open("rb") as stream:
                os.fsync(stream.fileno())
        files = tuple(
            lake.publish(folder / name, f"{checkpoint.folder}/{name}", timed=name == STATE) for name in (WEIGHTS, STATE)
        )
    whole = checkpoint.model_copy(update={"files": files})
    lake.write_bytes(f"{whole.folder}/{RECORD}", whole.model_dump_json(indent=1).encode() + b"\n", durable=True)
    return whole


def restore(lake: Lake, checkpoint: Checkpoint, model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's state into a model that was built alike. Raises CorruptFile."""
    load_weights(lake, checkpoint, ema.ema_model)
    path = f"{checkpoint.folder}/{STATE}"
    with lake.local(path) as local:
        try:
            state = torch.load(local, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise CorruptFile(f"{lake.full(path)} cannot be read ({_first_line(error)}); delete its folder") from error
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema.step.fill_(state["ema_step"])
    ema.initted.fill_(True)


def load_weights(lake: Lake, checkpoint: Checkpoint, model: nn.Module) -> None:
    """The averaged weights into a model built from `checkpoint.model`. Raises CorruptFile."""
    path = f"{checkpoint.folder}/{WEIGHTS}"
    with lake.local(path) as local:
        try:
            model.load_state_dict(load_file(local))
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CorruptFile(
                f"{lake.full(path)} does not hold the weights its record tells of ({_first_line(error)})"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def found(lake: Lake, run: str) -> list[Checkpoint]:
    """The whole checkpoints of a run, the oldest first; one that was being written when a kill came is none."""
    paths = lake.list(f"runs/{run}/checkpoints")
    there = []
    for path in paths:
        if path.endswith(f"/{RECORD}"):
            # A training that goes on meanwhile removes what it no longer keeps.
            with contextlib.suppress(FileNotFoundError):
                one = read(lake, path)
                there += [] if missing_files(lake, one.files) else [one]
    return sorted(there, key=lambda one: one.step)


def read(lake: Lake, path: str) -> Checkpoint:
    """The record of a checkpoint at a path in the lake. Raises CorruptFile."""
    try:
        return Checkpoint.model_validate_json(lake.read_bytes(path))
    except ValidationError as error:
        raise CorruptFile(
            f"{lake.full(path)} is no checkpoint ({error.errors()[0]['msg']}); delete its folder"
        ) from error


NOT_OF_THE_SHAPE = ("sample_timesteps", "cond_drop_prob", "image_cond_drop_prob", "text_cond_drop_prob")
"""Fields of a model's configuration that say how it is used, not which weights it has."""
DROPOUTS = ("attn_dropout", "ff_dropout")


def shape(model: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration decides which weights fit, and what they mean."""
    kept = {name: value for name, value in model.items() if name not in NOT_OF_THE_SHAPE}
    if "net" in kept:
        kept["net"] = {name: value for name, value in kept["net"].items() if name not in DROPOUTS}
    return kept


def forget(lake: Lake, run: str, after: int) -> None:
    """Remove a run's checkpoints beyond a step: they will be made again, or are of another line."""
    for one in found(lake, run):
        if one.step > after:
            lake.remove(f"{one.folder}/{RECORD}")


def best(checkpoints: list[Checkpoint]) -> Checkpoint:
    """The least validation loss, the later one of equals; without validation the last. Raises ValueError if empty."""
    return min(checkpoints, key=lambda one: (float("inf") if one.val_loss is None else one.val_loss, -one.step))


def prune(lake: Lake, run: str, keep: int) -> None:
    """Remove all but the latest `keep` checkpoints and the best, and what a kill left half written."""
    whole = found(lake, run)
    kept = {one.folder for one in [*whole[-keep:], *([best(whole)] if whole else [])]}
    for path in lake.list(f"runs/{run}/checkpoints"):
        if path.rsplit("/", 1)[0] not in kept and path.endswith(f"/{RECORD}"):
            # The record first: a checkpoint that is half removed is none.
            lake.remove(path)
    for path in lake.list(f"runs/{run}/checkpoints"):
        if (folder := path.rsplit("/", 1)[0]) not in kept:
            lake.remove(path)
            if lake.is_local:
                with contextlib.suppress(OSError):
                    Path(lake.full(folder)).rmdir()


def at(lake: Lake, path: str) -> Checkpoint:
    """The checkpoint that a person named: its folder or its record, in the lake or as a path. Raises UsageError."""
    inside = path.rstrip("/").removesuffix(f"/{RECORD}")
    if lake.is_local and Path(inside).exists():
        resolved = Path(inside).resolve()
        if not resolved.is_relative_to(Path(lake.root).resolve()):
            raise UsageError(f"checkpoint {path} is not in dataset {lake.dataset!r}: copy its folder below runs/ first")
        inside = str(resolved.relative_to(Path(lake.root).resolve()))
    record = f"{inside}/{RECORD}"
    if inside.startswith("/") or not lake.exists(record):
        raise UsageError(
            f"no checkpoint at {path}: expected a folder such as runs/decoder-…/checkpoints/step-00000500 with {RECORD}"
        )
    return read(lake, record)
