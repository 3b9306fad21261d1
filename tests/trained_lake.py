"""A lake with trained models, for tests of what trains and of what draws.

quick_recipe    the demo's recipe with 100 kids and some ten seconds of training
trained_lake    (once a run) demo_lake after prior, decoder and judge; never written to by a test
trained_copy    a copy of it that a test may damage
in_process      training runs in this process, for tests of its result and not of the child process
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared_lake import copied, made_once

from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.pipeline import TRAINING_STAGES, run_stage
from sp_data.recipe import Recipe, load_recipe

QUICK = [
    "source.demo.num_kids=100",
    "shard.samples_per_shard=20",
    "prior.steps=60",
    "prior.batch_size=16",
    "prior.save_every=20",
    "prior.log_every=5",
    "decoder.steps=12",
    "decoder.save_every=4",
    "decoder.log_every=2",
    "decoder.batch_size=8",
    "decoder.unets.1.steps=6",
    "decoder.lr_warmup_steps=1",
    "decoder.sample_timesteps=8",
    "judge.num_prompts=4",
]


@pytest.fixture(scope="session")
def quick_recipe() -> Recipe:
    return load_recipe("demo", QUICK)


@pytest.fixture(scope="session")
def trained_lake(demo_lake: Lake, quick_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    def make(folder: Path) -> Lake:
        lake = copied(demo_lake, folder)
        remember_recipe(quick_recipe, lake)
        for name in TRAINING_STAGES:
            assert run_stage(name, quick_recipe, lake).state == "done"
        return lake

    return made_once("trained", make, tmp_path_factory)


@pytest.fixture
def trained_copy(trained_lake: Lake, tmp_path: Path) -> Lake:
    return copied(trained_lake, tmp_path)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process spends ten seconds on imports; this process has done them already."""
    # Imported late: every test run loads this module, and torch takes seconds.
    from sp_data.training import stage, worker
    from sp_data.training.job import TrainingJob

    def run(_module: str, job: dict[str, Any], *_: object) -> None:
        worker.train(TrainingJob.model_validate(job))

    monkeypatch.setattr(stage, "_run_child", run)
