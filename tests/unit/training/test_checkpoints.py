"""Checkpoints: only whole ones count, the latest and the best are kept, and everything in them is restored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ema_pytorch import EMA
from torch import nn

from sp_data.errors import CorruptFile, UsageError
from sp_data.lake import Lake
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint

RUN = "prior-12345678"


def record(step: int, val_loss: float | None) -> Checkpoint:
    return Checkpoint(
        kind="prior",
        run=RUN,
        step=step,
        loss=1.0,
        val_loss=val_loss,
        num_samples=5,
        dataset="d" * 64,
        clip="tiny-00000000",
        settings={},
        model={},
        num_parameters=6,
        files=(),
    )


class Trained:
    """A small model with its moving average and optimizer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Linear(2, 2)
        self.ema = EMA(self.model, beta=0.9, update_after_step=0, update_every=1, include_online_model=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.ema.update()

    def weights(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.ema.ema_model.parameters()]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), "demo")


def save(lake: Lake, trained: Trained, step: int, val_loss: float | None = None) -> Checkpoint:
    return checkpoints.save(lake, record(step, val_loss), trained.model, trained.ema, trained.optimizer)


def test_a_restored_training_goes_on_like_one_that_never_stopped(lake: Lake) -> None:
    undisturbed, resumed = Trained(1), Trained(2)
    for _ in range(3):
        undisturbed.step()
    saved = save(lake, undisturbed, 3)
    checkpoints.restore(lake, saved, resumed.model, resumed.ema, resumed.optimizer)
    for trained in (undisturbed, resumed):
        trained.step()
        trained.step()
    for expected, actual in zip(undisturbed.weights(), resumed.weights(), strict=True):
        assert torch.equal(expected, actual)


def test_the_latest_and_the_best_are_kept(lake: Lake) -> None:
    trained = Trained(1)
    for step, val_loss in ((1, 0.9), (2, 0.3), (3, 0.5), (4, 0.4), (5, 0.6)):
        save(lake, trained, step, val_loss)
    checkpoints.prune(lake, RUN, keep=2)
    kept = checkpoints.of_run(lake, RUN)
    assert [checkpoint.step for checkpoint in kept] == [2, 4, 5]
    assert checkpoints.best(kept).step == 2
    folders = {path.rsplit("/", 2)[1] for path in lake.list(f"runs/{RUN}")}
    assert folders == {"step-00000002", "step-00000004", "step-00000005"}


def test_without_validation_the_last_is_the_best(lake: Lake) -> None:
    for step in (1, 2):
        save(lake, Trained(1), step)
    assert checkpoints.best(checkpoints.of_run(lake, RUN)).step == 2


@pytest.mark.parametrize("lost", ["checkpoint.json", "state.pt", "weights.safetensors"])
def test_a_checkpoint_that_a_kill_left_half_written_is_ignored(lake: Lake, lost: str) -> None:
    for step in (1, 2):
        save(lake, Trained(1), step)
    lake.remove(f"runs/{RUN}/checkpoints/step-00000002/{lost}")
    assert [checkpoint.step for checkpoint in checkpoints.of_run(lake, RUN)] == [1]
    checkpoints.prune(lake, RUN, keep=2)
    assert not any("step-00000002" in path for path in lake.list("runs"))


@pytest.mark.parametrize("file", ["state.pt", "weights.safetensors"])
def test_garbage_of_the_right_size_is_named(lake: Lake, file: str) -> None:
    trained = Trained(1)
    saved = save(lake, trained, 1)
    path = Path(lake.full(f"{saved.folder}/{file}"))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CorruptFile, match=file):
        checkpoints.restore(lake, saved, trained.model, trained.ema, trained.optimizer)


def test_nothing_pickled_is_run(lake: Lake) -> None:
    """A state that holds more than tensors is refused, not executed."""
    trained = Trained(1)
    saved = save(lake, trained, 1)
    path = Path(lake.full(f"{saved.folder}/state.pt"))
    torch.save({"step": 1, "model": print}, path)
    with pytest.raises(CorruptFile):
        checkpoints.restore(lake, saved, trained.model, trained.ema, trained.optimizer)


def test_a_checkpoint_is_found_by_its_path_in_the_lake_or_on_the_disk(lake: Lake) -> None:
    saved = save(lake, Trained(1), 1)
    for path in (saved.folder, lake.full(saved.folder), f"{lake.full(saved.folder)}/checkpoint.json"):
        assert checkpoints.at(lake, path) == saved
    with pytest.raises(UsageError, match="no checkpoint at runs/nowhere"):
        checkpoints.at(lake, "runs/nowhere")
