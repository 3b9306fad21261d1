"""Checkpoints: all that a killed training needs to resume, and all that generation needs.

    runs/decoder-unet1-1f0c55ab/checkpoints/step-00000500/
      weights.safetensors    the averaged (EMA) weights of the whole network, which generate
      state.pt               the trained weights, the optimizer, the age of the average: to resume from
      checkpoint.json        step, losses, dataset, model; published last: with it the checkpoint is whole

No random state is kept: the order of samples, noise and times are functions of (seed, step).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sp_data.canonical import sha256_of
from sp_data.errors import CorruptFile, LakeFull, UsageError, reason_of
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import PLAIN_NAME, Frozen, first_problem, missing_files
from sp_data.training.models import Kind

RECORD = "checkpoint.json"
WEIGHTS = "weights.safetensors"
STATE = "state.pt"


class Checkpoint(Frozen):
    kind: Kind
    unet: int | None = None
    """Of a decoder: which of its unets, from 1."""
    run: str = Field(pattern=PLAIN_NAME)
    """The folder below runs/, for example 'decoder-unet1-1f0c55ab'."""
    step: int = Field(ge=0, lt=10**12)
    """Steps done."""
    loss: float
    """Training loss, averaged over the steps since the last line of metrics.jsonl."""
    val_loss: float | None
    """Loss of the averaged weights on the val split, at fixed noise and times; None without a val split."""
    num_samples: int
    """Samples in the training split."""
    dataset: str
    """Digest of the verified dataset."""
    clip: str
    """Folder of the CLIP that made the embeddings, with its digest."""
    settings: dict[str, Any]
    """What of the recipe names these weights, precision included."""
    model: dict[str, Any]
    """The network's configuration (models.py)."""
    num_parameters: int
    measured: dict[str, float] = Field(default_factory=dict)
    """Figures of the averaged weights beside the loss: the prior's cosines."""
    ancestor: str = ""
    """`name` of the checkpoint or of the adopted weights that this run began with; empty if it began from scratch."""
    start: str = ""
    """The adopted weights that its training began with, beside which a LoRA stands; empty: random ones."""
    made_at: str = ""
    """UTC, ISO 8601."""
    files: tuple[FileEntry, ...]
    place: str = Field("", exclude=True)
    """The folder it was read from, if it was copied elsewhere."""

    @property
    def folder(self) -> str:
        return self.place or f"runs/{self.run}/checkpoints/step-{self.step:08d}"

    @property
    def digest(self) -> str:
        """sha256 of the averaged weights."""
        return next(entry.sha256 for entry in self.files if entry.path.endswith(WEIGHTS))

    @property
    def name(self) -> str:
        """Identifies these very weights: run, step and digest."""
        return f"{self.run}/step-{self.step:08d}/{self.digest[:16]}"

    def __str__(self) -> str:
        return f"{self.run} step {self.step:,}"


def save(lake: Lake, checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], state: dict[str, Any]) -> Checkpoint:
    """Publish a checkpoint, its record last. Returns it with its files. Raises LakeFull."""
    # Tensors that layers share are written once for each layer: safetensors would list them in no fixed order, and
    # equal weights must give equal bytes.
    whole_weights = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    with lake.scratch("checkpoint") as folder:
        with _full_disk(folder, num_bytes(whole_weights) + num_bytes(state), lake.full(checkpoint.folder)):
            save_file(whole_weights, folder / WEIGHTS)
            with (folder / STATE).open("wb") as stream:
                torch.save(state, stream)
            for name in (WEIGHTS, STATE):
                # Flushed to the disk before the record that lists them.
                with (folder / name).open("rb") as stream:
                    os.fsync(stream.fileno())
        files = tuple(
            lake.publish(folder / name, f"{checkpoint.folder}/{name}", timed=name == STATE) for name in (WEIGHTS, STATE)
        )
    made_at = datetime.now(UTC).isoformat()
    whole = checkpoint.model_copy(update={"files": files, "made_at": made_at})
    lake.write_bytes(f"{whole.folder}/{RECORD}", whole.model_dump_json(indent=1).encode() + b"\n", durable=True)
    return whole


def num_bytes(value: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    return sum(map(num_bytes, value)) if isinstance(value, list | tuple) else 0


@contextlib.contextmanager
def _full_disk(folder: Path, needed: int, target: str) -> Iterator[None]:
    """Turn torch's and safetensors' own errors of a full disk into LakeFull, before anything is written if possible."""
    free = shutil.disk_usage(folder).free
    sentence = (
        f"no space left for {target}, which takes {needed / 1e6:,.0f} MB; free some, then run the same command again"
    )
    if free < needed:
        raise LakeFull(sentence)
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        left = shutil.disk_usage(folder).free
        if "No space left" in str(error) or left < needed // 100:
            raise LakeFull(sentence) from error
        raise


def load_state(lake: Lake, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `save` was given as `state`, on the CPU. Raises CorruptFile."""
    path = f"{checkpoint.folder}/{STATE}"
    with lake.local(path) as local:
        _check_bytes(checkpoint, local, lake.full(path))
        try:
            state: dict[str, Any] = torch.load(local, map_location="cpu", weights_only=True)
        except Exception as error:
            # A pickle that is broken raises whatever its broken part makes torch raise.
            raise CorruptFile(f"{lake.full(path)} cannot be read ({_first_line(error)}); delete its folder") from error
    if not isinstance(state, dict):
        raise CorruptFile(f"{lake.full(path)} holds no state of a training; delete its folder")
    return state


def load_weights(lake: Lake, checkpoint: Checkpoint, network: nn.Module) -> None:
    """Load the averaged weights into a network built from `checkpoint.model`. Raises CorruptFile."""
    path = f"{checkpoint.folder}/{WEIGHTS}"
    with lake.local(path) as local:
        _check_bytes(checkpoint, local, lake.full(path))
        try:
            network.load_state_dict(load_file(local))
        except Exception as error:
            # A broken file makes safetensors and torch raise errors of many kinds.
            raise CorruptFile(
                f"{lake.full(path)} does not hold the weights that its record describes "
                f"({_first_line(error)}); delete its folder"
            ) from error


def _check_bytes(checkpoint: Checkpoint, local: Path, shown: str) -> None:
    """Raises CorruptFile if a file is not the one that the record lists, byte for byte."""
    recorded = next((entry.sha256 for entry in checkpoint.files if Path(entry.path).name == local.name), "nothing")
    with local.open("rb") as stream:
        digest = sha256_of(stream)
    if digest != recorded:
        raise CorruptFile(
            f"{shown} was changed since it was written: its sha256 is {digest[:12]}…, its record says "
            f"{recorded[:12]}…; delete its folder"
        )


def _first_line(error: BaseException) -> str:
    return reason_of(ValueError((str(error).splitlines() or [type(error).__name__])[0]))


def of_run(lake: Lake, run: str) -> list[Checkpoint]:
    """The whole checkpoints of a run, the oldest first; one that a kill left half written is left out."""
    paths = lake.list(f"runs/{run}/checkpoints")
    checkpoints = []
    for path in paths:
        if path.endswith(f"/{RECORD}"):
            # A training may remove checkpoints at the same time.
            with contextlib.suppress(FileNotFoundError):
                checkpoint = read(lake, path)
                checkpoints += [] if missing_files(lake, checkpoint.files) else [checkpoint]
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def read(lake: Lake, path: str) -> Checkpoint:
    """Read a checkpoint's record at a path in the lake. Raises CorruptFile."""
    try:
        checkpoint = Checkpoint.model_validate_json(lake.read_bytes(path))
    except ValidationError as error:
        raise CorruptFile(
            f"{lake.full(path)} is not a valid checkpoint ({first_problem(error)}); delete its folder"
        ) from error
    if not any(entry.path.endswith(WEIGHTS) for entry in checkpoint.files):
        raise CorruptFile(f"{lake.full(path)} names no {WEIGHTS}; delete its folder")
    folder = path.removesuffix(f"/{RECORD}")
    if folder == checkpoint.folder:
        return checkpoint
    # A copy of a folder: its files lie beside its record.
    files = [entry.model_copy(update={"path": f"{folder}/{Path(entry.path).name}"}) for entry in checkpoint.files]
    return checkpoint.model_copy(update={"place": folder, "files": tuple(files)})


NOT_IN_SHAPE = ("sample_timesteps", "cond_drop_prob", "image_cond_drop_prob", "text_cond_drop_prob")
"""Fields of a model's configuration that change how it is used, not which weights it has."""
DROPOUTS = ("attn_dropout", "ff_dropout")


def shape(model: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that decide which weights fit, and what they mean."""
    kept = {name: value for name, value in model.items() if name not in NOT_IN_SHAPE}
    if "net" in kept:
        kept["net"] = {name: value for name, value in kept["net"].items() if name not in DROPOUTS}
    return kept


def forget(lake: Lake, run: str, after: int) -> None:
    """Remove a run's checkpoints beyond a step: they will be made again, or had another ancestor."""
    for checkpoint in of_run(lake, run):
        if checkpoint.step > after:
            lake.remove(f"{checkpoint.folder}/{RECORD}")


def best(checkpoints: list[Checkpoint]) -> Checkpoint:
    """The one with the least validation loss, the later of equals; without a validation loss the last.

    Raises ValueError if there are none.
    """
    return min(
        checkpoints,
        key=lambda checkpoint: (float("inf") if checkpoint.val_loss is None else checkpoint.val_loss, -checkpoint.step),
    )


def prune(lake: Lake, run: str, keep: int) -> None:
    """Remove all but the latest `keep` checkpoints and the best; remove half written ones too."""
    checkpoints = of_run(lake, run)
    kept_folders = {
        checkpoint.folder for checkpoint in [*checkpoints[-keep:], *([best(checkpoints)] if checkpoints else [])]
    }
    for path in lake.list(f"runs/{run}/checkpoints"):
        if path.rsplit("/", 1)[0] not in kept_folders and path.endswith(f"/{RECORD}"):
            # The record first: without it a half removed checkpoint does not count.
            lake.remove(path)
    for path in lake.list(f"runs/{run}/checkpoints"):
        if (folder := path.rsplit("/", 1)[0]) not in kept_folders:
            lake.remove(path)
            if lake.is_local:
                with contextlib.suppress(OSError):
                    Path(lake.full(folder)).rmdir()


def at(lake: Lake, path: str) -> Checkpoint:
    """The checkpoint at a path that a person gave: its folder or its record, in the lake or on the disk.

    Raises UsageError.
    """
    inside = path.rstrip("/").removesuffix(f"/{RECORD}")
    if lake.is_local and Path(inside).exists():
        resolved = Path(inside).resolve()
        if not resolved.is_relative_to(Path(lake.root).resolve()):
            raise UsageError(
                f"checkpoint {path} is not in dataset {lake.dataset!r}: copy its folder into "
                f"{lake.full('runs/copied/checkpoints')} and name it there"
            )
        inside = str(resolved.relative_to(Path(lake.root).resolve()))
    record = f"{inside}/{RECORD}"
    if inside.startswith("/") or not lake.exists(record):
        raise UsageError(
            f"no checkpoint at {path}: expected a folder such as runs/prior-…/checkpoints/step-00000500 with {RECORD}"
        )
    return read(lake, record)
