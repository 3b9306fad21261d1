"""How a step is divided changes nothing: micro-batches, gradient checkpointing, processes that come and go."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.recipe import Decoder, Prior, Recipe, Training
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.decoder import UnetTask
from sp_data.training.draws import Draws
from sp_data.training.job import prepare
from sp_data.training.loop.loop import Loop
from sp_data.training.loop.metrics import read_metrics
from sp_data.training.prior import PriorTask
from sp_data.training.seeds import seed_all
from sp_data.training.task import Batch, Task, part

DIM, BATCH = 32, 6
UNET = {
    "dim": 16,
    "dim_mults": [1, 2],
    "cond_dim": 24,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 16,
    "self_attn": [False, True],
}
SETTINGS = {"batch_size": BATCH, "precision": "fp32"}
DECODER = {
    **SETTINGS,
    "unets": [
        {**UNET, "image_size_px": 16, "text_encodings": True},
        {**UNET, "image_size_px": 32, "random_crop_px": 16, "use_noise_for_lowres_cond": True},
    ],
}


def make(name: str, **changes: object) -> Task:
    """The same weights each time."""
    seed_all("weights")
    settings: Training
    if name == "prior":
        prior = Prior.model_validate({**SETTINGS, "depth": 2, "heads": 2, "dim_head": 16, "dropout": 0, **changes})
        settings, task = prior, PriorTask(prior, DIM)
    else:
        number = int(name.removeprefix("unet "))
        decoder = Decoder.model_validate({**DECODER, **changes})
        settings, task = decoder.training_of(number), UnetTask(decoder, number, DIM)  # type: ignore[assignment]
    prepare(task, settings)
    task.network.train()
    return task


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(BATCH, 3, 32, 32, generator=generator),
        "image_embed": torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator), dim=-1),
        "text_embed": torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator), dim=-1),
        "text_encodings": torch.randn(BATCH, 77, DIM, generator=generator),
    }


def gradients(task: Task, parts: list[list[int]]) -> tuple[float, list[torch.Tensor]]:
    """The loss and gradients of a step whose batch is divided into these rows."""
    total = 0.0
    for rows in parts:
        draws = Draws((0, "step", 7), BATCH, rows, torch.device("cpu"))
        own = {name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in batch().items()}
        loss = task.loss(own, draws) * (len(rows) / BATCH)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, [weight.grad.clone() for weight in task.network.parameters() if weight.grad is not None]


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    difference = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
    return math.sqrt(difference / sum(float(b.square().sum()) for b in other))


@pytest.mark.parametrize("name", ["prior", "unet 1", "unet 2"])
@pytest.mark.parametrize("parts", [[[0, 1], [2, 3], [4, 5]], [[0, 2, 4], [1, 3, 5]], [[5], [0, 1, 2, 3, 4]]])
def test_a_divided_batch_has_the_loss_and_gradients_of_the_whole(name: str, parts: list[list[int]]) -> None:
    loss, whole = gradients(make(name), [list(range(BATCH))])
    divided_loss, divided = gradients(make(name), parts)
    assert divided_loss == pytest.approx(loss, rel=1e-6)
    assert apart(divided, whole) <= 1e-6


@pytest.mark.parametrize("name", ["prior", "unet 1", "unet 2"])
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_the_loop_adds_up_micro_batches_to_the_whole(name: str, micro_batch_size: int, tmp_path: Path) -> None:
    loss, whole = loop_gradients(make(name), BATCH, tmp_path)
    divided_loss, divided = loop_gradients(make(name), micro_batch_size, tmp_path)
    assert divided_loss == pytest.approx(loss, rel=1e-6)
    assert apart(divided, whole) <= 1e-6


def loop_gradients(task: Task, micro_batch_size: int, folder: Path) -> tuple[float, list[torch.Tensor]]:
    from accelerate import Accelerator

    settings = Prior.model_validate({**SETTINGS, "text_encodings": False})
    template = Checkpoint.model_construct(kind=task.kind, run="parts", files=())
    accelerator = Accelerator(cpu=True)
    lake = Lake(str(folder), "parts")
    loop = Loop(task, settings, template, lake, [], [], accelerator, micro_batch_size, lambda _: None)  # type: ignore[arg-type]
    task.network.train()
    loss = float(loop.backward(batch(), step=7))
    return loss, [weight.grad.clone() for weight in task.network.parameters() if weight.grad is not None]


def test_a_part_of_the_draws_belongs_to_the_same_rows() -> None:
    whole = Draws((0, "step", 7), BATCH, None, torch.device("cpu"))
    some = Draws((0, "step", 7), BATCH, [1, 3, 5], torch.device("cpu")).part(range(1, 3))
    assert torch.equal(some.normal("noise", (2, 2)), whole.normal("noise", (2, 2))[[3, 5]])
    assert some.offsets("crop top", 17) == [whole.offsets("crop top", 17)[row] for row in (3, 5)]
    assert part({"key": ["a", "b", "c"]}, range(1, 3)) == {"key": ["b", "c"]}


@pytest.mark.parametrize("name", ["unet 1", "unet 2"])
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    loss, kept = gradients(make(name), [list(range(BATCH))])
    again_loss, computed_again = gradients(make(name, gradient_checkpointing=True), [list(range(BATCH))])
    assert again_loss == pytest.approx(loss, rel=1e-6)
    assert apart(computed_again, kept) <= 1e-6


STEPS = 160
OPTIONS = {"steps": STEPS, "save_every": 80, "log_every": 10, "batch_size": 16, "seed": 31}


def command(recipe: Recipe, lake: Lake, folder: Path, **changes: object) -> list[str]:
    prior = recipe.prior.model_copy(update={**OPTIONS, **changes})
    file = folder / "recipe.yaml"
    file.write_text(recipe.model_copy(update={"prior": prior}).model_dump_json())
    return [sys.executable, "-m", "sp_data.cli", "train", "prior", str(file), "--lake", str(Path(lake.root).parent)]


def run_of(lake: Lake, before: set[str]) -> str:
    """The run that came since."""
    (run,) = runs(lake) - before
    return run


def runs(lake: Lake) -> set[str]:
    return {path.name for path in Path(lake.full("runs")).iterdir()}


def stop_when(process: subprocess.Popen[str], condition: Callable[[], bool], number: signal.Signals) -> str:
    """Send a command a signal, once a condition holds; gives what it said."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return said


@pytest.mark.proof
def test_a_training_of_two_processes_is_stopped_goes_on_with_one_and_ends_with_two(
    trained_copy: Lake, quick_recipe: Recipe, tmp_path: Path
) -> None:
    """Told to stop, by Ctrl-C or as systemd does, it saves first: not a step is lost, though processes that read ahead
    are told too. With any number of processes and micro-batches its losses are the same."""
    before = runs(trained_copy)
    steps: list[int] = []
    how: tuple[tuple[dict[str, object], signal.Signals], ...] = (
        ({"processes": 2, "micro_batch_size": 3, "loader_processes": 1}, signal.SIGINT),
        ({"processes": 1, "micro_batch_size": 7, "loader_processes": 2}, signal.SIGTERM),
    )
    for changes, number in how:
        process = subprocess.Popen(
            command(quick_recipe, trained_copy, tmp_path, **changes), stderr=subprocess.PIPE, text=True
        )
        wanted = (steps[-1] if steps else 0) + 1

        def has_begun(wanted: int = wanted) -> bool:
            if len(runs(trained_copy)) == len(before):
                return False
            rows = read_metrics(trained_copy, run_of(trained_copy, before))
            return bool(rows) and rows[-1]["step"] > wanted + 5

        stop_when(process, has_begun, number)
        saved = checkpoints.of_run(trained_copy, run_of(trained_copy, before))
        steps.append(saved[-1].step)
    assert 0 < steps[0] < steps[1] < STEPS
    assert any(step % OPTIONS["save_every"] for step in steps), "at the step where it was told to, not at the next save"  # type: ignore[operator]
    subprocess.run(command(quick_recipe, trained_copy, tmp_path, processes=2), check=True, capture_output=True)
    disturbed = run_of(trained_copy, before)
    losses = {row["step"]: row["loss"] for row in read_metrics(trained_copy, disturbed)}
    last = checkpoints.of_run(trained_copy, disturbed)[-1]
    for path in trained_copy.list(f"runs/{disturbed}") + trained_copy.list("manifests/prior"):
        trained_copy.remove(path)
    subprocess.run(command(quick_recipe, trained_copy, tmp_path, processes=1), check=True, capture_output=True)
    undisturbed = read_metrics(trained_copy, disturbed)
    # A line averages over the steps since the one before; a stop makes one more line.
    cut = [-(-step // 10) * 10 for step in steps]
    compared = [row for row in undisturbed if row["step"] in losses and row["step"] not in cut]
    # Rounding differs, and grows.
    assert [losses[row["step"]] for row in compared[:5]] == pytest.approx(
        [row["loss"] for row in compared[:5]], rel=1e-4
    )
    assert last.val_loss == pytest.approx(undisturbed[-1]["val_loss"], rel=0.01)
    manifest = manifests.latest(trained_copy, "prior")
    assert manifest is not None
    assert manifest.details["networks"][0]["last"]["step"] == STEPS
