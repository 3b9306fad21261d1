"""A stage that is killed after its first file goes on where it was, to the digests of an undisturbed run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.road import INPUTS, STAGES, remember_recipe, run_stage

KILLING = Path(__file__).parents[2] / "killing.py"
FIRST_FILES = {
    "scrape": "originals/",
    "curate": "normalised/",
    "shard": "shards/",
    "embed": "embeddings/",
    "reorder": "reordered/",
    # Verify publishes nothing but its manifest: the first of the two files that make it, `latest` being the second.
    "verify": "manifests/verify/",
}


def digests(lake: Lake) -> dict[str, str | None]:
    found = {stage: manifests.latest(lake, stage) for stage in STAGES}
    return {stage: manifest.digest if manifest else None for stage, manifest in found.items()}


def with_stages(road_lake: Lake, root: Path, before: str) -> Lake:
    """A lake as it was before a stage ran for the first time."""
    lake = Lake(str(root / "lake"), road_lake.dataset)
    keep = {"scrape": ("originals", "catalogue"), "curate": ("curated", "normalised"), "shard": ("shards",)}
    keep |= {"embed": ("embeddings",), "reorder": ("reordered",)}
    for stage in STAGES[: STAGES.index(before)]:
        for folder in (*keep[stage], f"manifests/{stage}"):
            shutil.copytree(road_lake.full(folder), lake.full(folder))
    return lake


def kill_in(stage: str, recipe: Recipe, lake: Lake, after: int) -> str:
    remember_recipe(recipe, lake)
    recipe_file = Path(lake.full("recipe.json")).with_name("recipe.yaml")
    recipe_file.write_text(recipe.model_dump_json())
    command = [sys.executable, str(KILLING), FIRST_FILES[stage], str(after), stage, str(recipe_file)]
    command += ["--lake", str(Path(lake.root).parent)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return killed.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_as_an_undisturbed_one(
    stage: str, demo_recipe: Recipe, road_lake: Lake, tmp_path: Path
) -> None:
    lake = with_stages(road_lake, tmp_path, stage)
    said = kill_in(stage, demo_recipe, lake, after=1)
    assert f"killed after {FIRST_FILES[stage]}" in said
    if stage != "verify":
        assert manifests.latest(lake, stage) is None, "killed before its manifest"
    for later in STAGES[STAGES.index(stage) :]:
        run_stage(later, demo_recipe, lake)
    assert digests(lake) == digests(road_lake)
    assert not list(Path(lake.root, ".scratch").iterdir()), "what the killed run left was swept"


def test_a_killed_run_does_not_do_finished_shards_again(demo_recipe: Recipe, road_lake: Lake, tmp_path: Path) -> None:
    lake = with_stages(road_lake, tmp_path, "reorder")
    kill_in("reorder", demo_recipe, lake, after=3)
    there = {path: path.stat().st_ino for path in Path(lake.full("reordered")).rglob("*.npy")}
    assert len(there) == 3
    run_stage("reorder", demo_recipe, lake)
    # The one in hand has no receipt yet; it is made again, with equal bytes, and left as it is.
    assert {path: path.stat().st_ino for path in there} == there
    assert set(INPUTS["reorder"]) == {"shard", "embed"}
