"""A training that is killed with SIGKILL, at any moment, ends as if it had never been: bit for bit.

The kill hits the command from outside, at a step drawn by a seed or within a save (tests/pause.py); the training's
processes have to die with it. Then the same command runs again. Compared are the metrics, the averaged weights' bytes,
the trained weights, the optimizer's state, and the keys of each step.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_lake import copied

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe, load_recipe
from sp_data.training import checkpoints, stage, worker
from sp_data.training.job import TrainingJob
from sp_data.training.loop.loop import Loop
from sp_data.training.loop.metrics import read_metrics
from sp_data.training.task import Batch

PAUSE = Path(__file__).parents[2] / "pause.py"
WAIT_S = 300
SMALL_UNET = "dim: 8, dim_mults: [1, 2], cond_dim: 16, num_resnet_blocks: 1, attn_heads: 2, attn_dim_head: 16, "
SMALL_UNET += "self_attn: [false, true], sparse_attn: false, init_cross_embed: false"
SETTINGS = [
    "source.demo.num_kids=100",
    "shard.samples_per_shard=20",
    "prior.steps=40",
    "prior.save_every=6",
    "prior.log_every=5",
    "prior.batch_size=16",
    "prior.depth=2",
    # Masks that torch itself draws.
    "prior.dropout=0.1",
    "prior.cond_drop_prob=0.1",
    "decoder.steps=40",
    "decoder.save_every=6",
    "decoder.log_every=5",
    "decoder.batch_size=8",
    "decoder.sample_timesteps=2",
    "decoder.image_cond_drop_prob=0.1",
    f"decoder.unets=[{{image_size_px: 16, {SMALL_UNET}}}, "
    f"{{image_size_px: 32, random_crop_px: 16, use_noise_for_lowres_cond: true, {SMALL_UNET}}}]",
]
STEPS, SAVE_EVERY = 40, 6


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", SETTINGS)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a training leaves, as far as it is the same each time."""

    metrics: list[list[dict[str, Any]]]
    """Of each network, without the speed."""
    averaged: list[dict[int, str]]
    """Of each network, by its step: the sha256 of weights.safetensors."""
    state: list[dict[str, Any]]
    """Of each network: its last state.pt."""
    keys: dict[tuple[int, str, int], list[str]]
    """By process, network and step."""


@dataclass(frozen=True, slots=True)
class Life:
    """A training on a lake of its own, in as many processes as the machine or `threads` allows."""

    lake: Lake
    kind: str
    recipe: Recipe
    folder: Path
    num_threads: int

    def start(self, moment: str) -> subprocess.Popen[bytes]:
        (self.folder / "recipe.yaml").write_text(self.recipe.model_dump_json())
        return subprocess.Popen(
            [
                *(sys.executable, PAUSE, self.folder, moment),
                *("train", self.kind, self.folder / "recipe.yaml", "--lake", Path(self.lake.root).parent),
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
            env={**os.environ, "OMP_NUM_THREADS": str(self.num_threads)},
        )

    def kill_at(self, moment: str) -> None:
        """Run it until a moment, and kill the command there: its children die with it."""
        reached = self.folder / "reached"
        reached.unlink(missing_ok=True)
        process = self.start(moment)
        deadline = time.monotonic() + WAIT_S
        while not reached.exists():
            assert process.poll() is None, f"{moment} never came: {self.said()}"
            assert time.monotonic() < deadline, f"{moment} did not come within {WAIT_S} s"
            time.sleep(0.02)
        children = list(descendants(process.pid))
        assert children
        process.kill()
        process.wait()
        while alive := [child for child in children if Path(f"/proc/{child}").exists()]:
            assert time.monotonic() < deadline, f"{alive} outlived the command"
            time.sleep(0.02)

    def run(self) -> None:
        """Run it to its end."""
        assert self.start("never").wait(WAIT_S) == 0, self.said()

    def said(self) -> str:
        return (self.folder / "stderr").read_text()[-2000:]

    def ended(self) -> Ended:
        manifest = manifests.latest(self.lake, self.kind)
        assert manifest is not None
        runs = [network["run"] for network in manifest.details["networks"]]
        saved = [checkpoints.of_run(self.lake, run) for run in runs]
        keys: dict[tuple[int, str, int], list[str]] = {}
        for file in sorted(self.folder.glob("keys-*.jsonl")):
            for line in file.read_text().splitlines():
                name, step, batch = json.loads(line)
                rank = int(file.stem.partition("-")[2])
                assert keys.setdefault((rank, name, step), batch) == batch, "a repeated step takes the same samples"
        return Ended(
            metrics=[
                [{name: value for name, value in row.items() if name != "samples_per_second"} for row in rows]
                for rows in (read_metrics(self.lake, run) for run in runs)
            ],
            averaged=[
                {one.step: self.lake.sha256(f"{one.folder}/weights.safetensors") for one in whole} for whole in saved
            ],
            state=[checkpoints.load_state(self.lake, whole[-1]) for whole in saved],
            keys=keys,
        )


def descendants(pid: int) -> Iterator[int]:
    """The processes below one, on Linux."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def assert_equal(one: Any, other: Any, where: str = "state") -> None:
    """Nested values, tensors bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}.{number}")
    else:
        assert one == other, where


def assert_ended_alike(disturbed: Life, undisturbed: Ended) -> None:
    ended = disturbed.ended()
    assert ended.metrics == undisturbed.metrics
    assert ended.averaged == undisturbed.averaged
    for one, other in zip(ended.state, undisturbed.state, strict=True):
        assert_equal(one, other)
    assert ended.keys == undisturbed.keys


@pytest.fixture(scope="module")
def undisturbed(demo_lake: Lake, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """By stage: trained in this process, whose imports are done, in one thread."""
    ended = {}
    for kind in ("prior", "decoder"):
        folder = tmp_path_factory.mktemp("undisturbed")
        life = Life(copied(demo_lake, folder), kind, recipe, folder, 1)
        with pytest.MonkeyPatch.context() as patch, (folder / "keys-0.jsonl").open("w") as stream:
            train_step = Loop.step

            def step(self: Loop, number: int, batch: Batch, train_step: Any = train_step, stream: Any = stream) -> Any:
                stream.write(json.dumps([self.task.name, number, batch["key"]]) + "\n")
                return train_step(self, number, batch)

            patch.setattr(Loop, "step", step)
            patch.setattr(stage, "_run_child", lambda _, job, *__: worker.train(TrainingJob.model_validate(job)))
            num_threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                run_stage(kind, recipe, life.lake)
            finally:
                torch.set_num_threads(num_threads)
        ended[kind] = life.ended()
    return ended


@pytest.fixture
def make_life(demo_lake: Lake, recipe: Recipe, tmp_path: Path) -> Callable[[str], Life]:
    return lambda kind: Life(copied(demo_lake, tmp_path), kind, recipe, tmp_path, 1)


def random_steps(seed: str, count: int) -> list[int]:
    """Steps before which the command is killed, in order. None is before the first save: there is nothing to resume."""
    return sorted(random.Random(seed).sample(range(SAVE_EVERY + 1, STEPS), count))


@pytest.mark.parametrize("network", ["prior", pytest.param("unet 2", marks=pytest.mark.proof)])
def test_a_training_killed_at_a_random_step_ends_as_an_undisturbed_one(
    network: str, make_life: Callable[[str], Life], undisturbed: dict[str, Ended]
) -> None:
    life = make_life("prior" if network == "prior" else "decoder")
    (step,) = random_steps(network, 1)
    life.kill_at(f"{network}:{step}")
    life.run()
    assert_ended_alike(life, undisturbed[life.kind])


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("network", ["prior", "unet 1", "unet 2"])
def test_a_training_killed_at_ten_random_steps_ends_as_an_undisturbed_one(
    network: str, make_life: Callable[[str], Life], undisturbed: dict[str, Ended]
) -> None:
    life = make_life("prior" if network == "prior" else "decoder")
    for step in random_steps(f"ten of {network}", 10):
        life.kill_at(f"{network}:{step}")
    life.run()
    assert_ended_alike(life, undisturbed[life.kind])


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_a_training_killed_within_saves_ends_as_an_undisturbed_one(
    kind: str, make_life: Callable[[str], Life], undisturbed: dict[str, Ended]
) -> None:
    """Of each command the second save; each time before another of its files is opened, renamed or removed."""
    life = make_life(kind)
    network = "prior" if kind == "prior" else "unet 2"
    for event in (1, 2, 4, 7, 10):
        life.kill_at(f"{network}:save 2:{event}")
    life.run()
    assert_ended_alike(life, undisturbed[life.kind])


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_a_training_of_two_processes_killed_at_random_steps_ends_as_an_undisturbed_one(
    demo_lake: Lake, recipe: Recipe, tmp_path: Path
) -> None:
    divided = recipe.model_copy(update={"prior": recipe.prior.model_copy(update={"processes": 2})})
    whole, disturbed = (
        Life(copied(demo_lake, folder), "prior", divided, folder, 2)
        for folder in (tmp_path / "whole", tmp_path / "disturbed")
    )
    whole.run()
    for step in random_steps("two processes", 3):
        disturbed.kill_at(f"prior:{step}")
    disturbed.run()
    undisturbed = whole.ended()
    assert {rank for rank, _, _ in undisturbed.keys} == {0, 1}
    # Five batches are less than an epoch: no sample comes twice, to whichever process.
    first = sorted({step for _, _, step in undisturbed.keys})[:5]
    taken = [key for (_, _, step), keys in undisturbed.keys.items() if step in first for key in keys]
    assert len(set(taken)) == len(taken) == 5 * divided.prior.batch_size
    assert_ended_alike(disturbed, undisturbed)
