"""A dataset with a history.

weeks_lake      (once a run) demo_lake after three more weeks of the demo's wiki, with four snapshots; only read
weeks_copy      a copy of it that a test may change
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import ObjectStore
from shared_lake import copied, made_once

from sp_data.lake import FileEntry, Lake
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import Recipe, load_recipe

NUM_WEEKS = 3


def recipe_after(weeks: int) -> Recipe:
    """The recipe of `demo_recipe`, some weeks later."""
    hundred_kids = ["source.demo.num_kids=100", "shard.samples_per_shard=20", "shard.processes=1"]
    return load_recipe("demo", [*hundred_kids, f"source.demo.weeks={weeks}"])


@pytest.fixture(scope="session")
def weeks_lake(demo_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    def make(folder: Path) -> Lake:
        lake = copied(demo_lake, folder)
        for week in range(1, NUM_WEEKS + 1):
            states = [run_stage(stage, recipe_after(week), lake).state for stage in DATASET_STAGES]
            assert states == ["done"] * len(DATASET_STAGES)
        return lake

    return made_once("weeks", make, tmp_path_factory)


@pytest.fixture
def weeks_copy(weeks_lake: Lake, tmp_path: Path) -> Lake:
    return copied(weeks_lake, tmp_path)


def checkpoint(lake: Lake, run: str, dataset: str, step: int = 4, ancestor: str = "") -> str:
    """Write a checkpoint's record and its run's configuration, without weights; give the checkpoint's folder."""
    folder = f"runs/{run}/checkpoints/step-{step:08d}"
    kind = run.partition("-")[0]
    record = {"kind": kind, "run": run, "step": step, "dataset": dataset, "ancestor": ancestor}
    lake.write_bytes(f"{folder}/checkpoint.json", json.dumps(record).encode())
    configure(lake, run, dataset)
    return folder


def configure(lake: Lake, run: str, dataset: str) -> None:
    config = {"kind": run.partition("-")[0], "run": run, "settings": {}, "dataset": dataset}
    lake.write_bytes(f"runs/{run}/config.json", json.dumps(config).encode())


@contextlib.contextmanager
def interrupted_after(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[None]:
    """Interrupt the body of the `with` statement right after the `count`-th file it publishes."""
    publish, published = Lake.publish, 0

    def publish_and_stop(self: Lake, file: Path, path: str, *, timed: bool = False) -> FileEntry:
        nonlocal published
        entry = publish(self, file, path, timed=timed)
        published += 1
        if published == count:
            raise KeyboardInterrupt
        return entry

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lake, "publish", publish_and_stop)
        yield


def put(lake: Lake, s3: ObjectStore) -> Lake:
    """Copy a dataset's whole folder to a bucket of its own."""
    remote = Lake(s3.bucket(f"copy-{uuid.uuid4().hex}"), lake.dataset)
    for path in Path(lake.root).rglob("*"):
        if path.is_file():
            remote.fs.put_file(str(path), remote.full(str(path.relative_to(lake.root))))
    return remote
