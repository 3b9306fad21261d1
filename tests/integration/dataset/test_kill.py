"""A stage that is killed after its first file goes on where it was, to the digests of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.recipe import Recipe, demo
from sp_data.road import DATASET_STAGES, INPUTS, remember_recipe, run_stage

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
    found = {stage: manifests.latest(lake, stage) for stage in DATASET_STAGES}
    return {stage: manifest.digest if manifest else None for stage, manifest in found.items()}


def with_stages(road_lake: Lake, root: Path, before: str) -> Lake:
    """A lake as it was before a stage ran for the first time."""
    lake = Lake(str(root / "lake"), road_lake.dataset)
    keep = {"scrape": ("originals", "catalogue"), "curate": ("curated", "normalised"), "shard": ("shards",)}
    keep |= {"embed": ("embeddings",), "reorder": ("reordered",)}
    for stage in DATASET_STAGES[: DATASET_STAGES.index(before)]:
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


def left_behind(lake: Lake) -> list[int]:
    """Processes that still have this lake in their environment or their command, three seconds after a kill."""
    deadline = time.monotonic() + 3
    while True:
        processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        found = [pid for pid in processes if knows(pid, lake.root)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def knows(pid: int, root: str) -> bool:
    try:
        said = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return pid != os.getpid() and root.encode() in said


def kill_and_go_on(stage: str, recipe: Recipe, road_lake: Lake, root: Path, after: int) -> None:
    lake = with_stages(road_lake, root, stage)
    said = kill_in(stage, recipe, lake, after)
    assert f"killed after {FIRST_FILES[stage]}" in said
    assert not left_behind(lake), "processes that outlived the run"
    if stage != "verify":
        assert manifests.latest(lake, stage) is None, "killed before its manifest"
    for later in DATASET_STAGES[DATASET_STAGES.index(stage) :]:
        run_stage(later, recipe, lake)
    assert digests(lake) == digests(road_lake)
    assert not list(Path(lake.root, ".scratch").iterdir()), "what the killed run left was swept"


@pytest.mark.parametrize("stage", DATASET_STAGES)
def test_a_killed_stage_ends_as_an_undisturbed_one(
    stage: str, demo_recipe: Recipe, road_lake: Lake, tmp_path: Path
) -> None:
    kill_and_go_on(stage, demo_recipe, road_lake, tmp_path, after=1)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("stage", "after"),
    [
        *[("scrape", 2), ("scrape", 60), ("curate", 2), ("curate", 3), ("shard", 2), ("shard", 5), ("shard", 11)],
        *[("embed", 2), ("embed", 9), ("embed", 20), ("reorder", 2), ("reorder", 13)],
    ],
)
def test_a_stage_killed_later_ends_as_an_undisturbed_one(
    stage: str, after: int, demo_recipe: Recipe, road_lake: Lake, tmp_path: Path
) -> None:
    kill_and_go_on(stage, demo_recipe, road_lake, tmp_path, after)


@pytest.mark.proof
def test_the_whole_demo_in_another_place_has_the_same_digests(tmp_path: Path) -> None:
    lakes = [Lake(str(tmp_path / place), "demo") for place in ("one", "two")]
    for lake in lakes:
        for stage in DATASET_STAGES:
            run_stage(stage, demo(), lake)
    assert digests(lakes[0]) == digests(lakes[1])


def test_a_killed_run_does_not_do_finished_shards_again(demo_recipe: Recipe, road_lake: Lake, tmp_path: Path) -> None:
    lake = with_stages(road_lake, tmp_path, "reorder")
    kill_in("reorder", demo_recipe, lake, after=3)
    there = {path: path.stat().st_ino for path in Path(lake.full("reordered")).rglob("*.npy")}
    # Two threads write: the other one may have published its file in the moment between.
    assert 3 <= len(there) < 14
    run_stage("reorder", demo_recipe, lake)
    # The one in hand has no receipt yet; it is made again, with equal bytes, and left as it is.
    assert {path: path.stat().st_ino for path in there} == there
    assert set(INPUTS["reorder"]) == {"shard", "embed"}
