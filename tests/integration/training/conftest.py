"""A lake that was trained on.

quick_recipe    the demo's recipe with 100 kids and some ten seconds of training
trained_lake    (session) road_lake after prior, decoder and judge; never written to by a test
trained_copy    a copy of it that a test may damage
in_process      trainings run in this process: for tests of what is trained, not of the process that does it
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.pipeline import TRAINING_STAGES, run_stage
from sp_data.recipe import Recipe, load_recipe
from sp_data.training import stage, worker

QUICK = [
    "source.demo.num_kids=100",
    "shard.samples_per_shard=20",
    "prior.steps=60",
    "prior.save_every=20",
    "prior.log_every=5",
    "decoder.steps=12",
    "decoder.save_every=4",
    "decoder.log_every=2",
    "decoder.batch_size=8",
    "judge.num_prompts=4",
]


@pytest.fixture(scope="session")
def quick_recipe() -> Recipe:
    return load_recipe("demo", QUICK)


@pytest.fixture(scope="session")
def trained_lake(road_lake: Lake, quick_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("trained") / "lake"
    shutil.copytree(Path(road_lake.root).parent, root)
    lake = Lake(str(root), road_lake.dataset)
    remember_recipe(quick_recipe, lake)
    for name in TRAINING_STAGES:
        assert run_stage(name, quick_recipe, lake).state == "done"
    return lake


@pytest.fixture
def trained_copy(trained_lake: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(Path(trained_lake.root).parent, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"), trained_lake.dataset)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process spends ten seconds on imports that this one has done."""

    def run(job: dict[str, Any], *_: object) -> None:
        worker.train(worker.Job.model_validate(job))

    monkeypatch.setattr(stage, "_run_child", run)
