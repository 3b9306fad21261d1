"""Checkpoints: only whole ones count, the latest and the best are kept, and everything in them is restored."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sp_data.errors import CorruptFile, LakeFull, UsageError
from sp_data.lake import Lake
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.loop.average import Average

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
        self.average = Average(self.model, 0.9)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.average.update()

    def weights(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.average.state().values()]

    def state(self) -> dict[str, Any]:
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"weights": weights, "optimizer": self.optimizer.state_dict(), "num_updates": self.average.num_updates}

    def restore(self, lake: Lake, checkpoint: Checkpoint) -> None:
        state = checkpoints.load_state(lake, checkpoint)
        checkpoints.load_weights(lake, checkpoint, self.model)
        self.average.load({name: value.clone() for name, value in self.model.named_parameters()}, state["num_updates"])
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), "demo")


def save(lake: Lake, trained: Trained, step: int, val_loss: float | None = None) -> Checkpoint:
    return checkpoints.save(lake, record(step, val_loss), trained.average.state(), trained.state())


def test_a_restored_training_goes_on_like_one_that_never_stopped(lake: Lake) -> None:
    undisturbed, resumed = Trained(1), Trained(2)
    for _ in range(3):
        undisturbed.step()
    saved = save(lake, undisturbed, 3)
    resumed.restore(lake, saved)
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
def test_a_changed_byte_is_an_error_that_names_the_file(lake: Lake, file: str) -> None:
    trained = Trained(1)
    saved = save(lake, trained, 1)
    path = Path(lake.full(f"{saved.folder}/{file}"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=rf"{file} was changed since it was written: its sha256 is"):
        trained.restore(lake, saved)


@pytest.mark.parametrize("file", ["state.pt", "weights.safetensors"])
def test_a_file_that_holds_something_else_is_named(lake: Lake, file: str) -> None:
    """Its record agrees with it: whoever wrote both lied, or another version did."""
    trained = Trained(1)
    saved = save(lake, trained, 1)
    Path(lake.full(f"{saved.folder}/{file}")).write_bytes(b"x" * 100)
    with pytest.raises(CorruptFile, match=file):
        trained.restore(lake, forged(lake, saved))


def test_nothing_pickled_is_run(lake: Lake) -> None:
    """A state that holds more than tensors is refused, not executed."""
    trained = Trained(1)
    saved = save(lake, trained, 1)
    torch.save({"step": 1, "weights": print}, lake.full(f"{saved.folder}/state.pt"))
    with pytest.raises(CorruptFile, match=r"state\.pt cannot be read"):
        trained.restore(lake, forged(lake, saved))


def forged(lake: Lake, checkpoint: Checkpoint) -> Checkpoint:
    """The record of files as they are now."""
    return checkpoint.model_copy(update={"files": tuple(lake.entry(entry.path) for entry in checkpoint.files)})


def test_a_copied_folder_is_a_checkpoint_wherever_it_lies(lake: Lake, tmp_path: Path) -> None:
    trained = Trained(1)
    saved = save(lake, trained, 1)
    copy = Path(lake.full("runs/mine/checkpoints/the-good-one"))
    shutil.copytree(lake.full(saved.folder), copy)
    shutil.rmtree(lake.full(f"runs/{RUN}"))
    found = checkpoints.at(lake, str(copy))
    assert (found.name, found.folder) == (saved.name, "runs/mine/checkpoints/the-good-one")
    Trained(2).restore(lake, found)
    assert [checkpoint.name for checkpoint in checkpoints.of_run(lake, "mine")] == [saved.name]


def test_a_checkpoint_elsewhere_is_refused_with_the_place_to_copy_it_to(lake: Lake, tmp_path: Path) -> None:
    saved = save(lake, Trained(1), 1)
    outside = tmp_path / "outside"
    shutil.copytree(lake.full(saved.folder), outside)
    with pytest.raises(UsageError, match=r"copy its folder into \S+/runs/copied/checkpoints and name it there"):
        checkpoints.at(lake, str(outside))
    inside = Path(lake.full("runs/copied/checkpoints/outside"))
    shutil.copytree(outside, inside)
    assert checkpoints.at(lake, str(inside)).name == saved.name


def test_a_disk_without_room_is_said_before_anything_is_written(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(LakeFull, match=r"no space left for \S+step-00000001, which takes \d+ MB; free some"):
        save(lake, Trained(1), 1)
    assert lake.list("runs") == []


def test_a_checkpoint_is_found_by_its_path_in_the_lake_or_on_the_disk(lake: Lake) -> None:
    saved = save(lake, Trained(1), 1)
    for path in (saved.folder, lake.full(saved.folder), f"{lake.full(saved.folder)}/checkpoint.json"):
        assert checkpoints.at(lake, path) == saved
    with pytest.raises(UsageError, match="no checkpoint at runs/nowhere"):
        checkpoints.at(lake, "runs/nowhere")
