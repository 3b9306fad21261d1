"""The dataset stages with their jobs on Ray, seen by a real Prefect server: the same digests as in one process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.prefect_api import BIN, environment, post

from sp_data.exchange.export.run import export, form_of
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests

pytestmark = pytest.mark.proof

ON_RAY = ["machines.runner=ray", "machines.jobs_a_task=3", "shard.distributor=ray"]


@pytest.fixture(scope="module")
def on_ray(demo_recipe: Recipe, server: str, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A dataset that the command made on Ray, with a new Prefect home that knows the server."""
    folder = tmp_path_factory.mktemp("ray")
    recipe = folder / "kids.yaml"
    recipe.write_text(demo_recipe.model_dump_json())
    settings = [part for setting in ON_RAY for part in ("--set", setting)]
    command = [str(BIN / "sp-data"), "run", str(recipe), "--until", "verify", "--json", "--lake", str(folder / "lake")]
    home = environment(folder / "home", PREFECT_API_URL=server)
    process = subprocess.run([*command, *settings], capture_output=True, text=True, env=home, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    assert {stage["state"] for stage in json.loads(process.stdout)["stages"]} == {"done"}
    return Lake(str(folder / "lake"), demo_recipe.name)


def test_digests_are_those_of_one_process(on_ray: Lake, demo_lake: Lake) -> None:
    ray_manifests, demo_manifests = (load_manifests(lake, DATASET_STAGES) for lake in (on_ray, demo_lake))
    assert {stage: manifest.digest for stage, manifest in ray_manifests.items()} == {
        stage: manifest.digest for stage, manifest in demo_manifests.items()
    }


def test_the_jobs_were_task_runs(on_ray: Lake, server: str) -> None:
    runs: list[dict[str, Any]] = post(server, "/task_runs/filter", {"task_runs": {"name": {"like_": "do_jobs"}}})
    # 112 pictures in jobs of 16, 14 files and 7 shards, three jobs a task run.
    assert len(runs) >= 3 + 5 + 3
    assert {run["state"]["type"] for run in runs} == {"COMPLETED"}


EXPORT = """
import sys
from flows.export import export
if __name__ == "__main__":
    # The recipe that the dataset keeps has Ray as its runner.
    export("demo", "kohya", sys.argv[1], splits=("val", "test"), lake=sys.argv[2])
"""


def test_an_export_on_ray_is_that_of_threads(on_ray: Lake, demo_recipe: Recipe, server: str, tmp_path: Path) -> None:
    command = [str(BIN / "python"), "-c", EXPORT, str(tmp_path / "ray"), on_ray.url]
    home = environment(tmp_path / "home", PREFECT_API_URL=server)
    process = subprocess.run(command, capture_output=True, text=True, env=home, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    verified = load_manifests(on_ray, DATASET_STAGES)["verify"]
    form = form_of("kohya", verified, demo_recipe)
    exported = export(verified, form, on_ray, tmp_path / "threads", to="kohya", splits=("val", "test"))
    assert exported.splits.keys() == {"val", "test"}
    assert all(exported.splits.values())
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "threads")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
