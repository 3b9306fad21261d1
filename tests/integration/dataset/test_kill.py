"""A stage killed after its first file goes on where it stopped, and ends with the digests of an undisturbed run.

Thirty moments are drawn, six in each stage from scrape to reorder. `make test` runs the second, at which img2dataset's
processes are at work. To repeat one:

    pytest tests/integration/dataset/test_kill.py -m proof -k "random and 17-embed"
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sp_data import manifest as manifests
from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, STAGES, run_stage
from sp_data.recipe import Recipe, demo

KILLING = Path(__file__).parents[2] / "kill.py"
FIRST_FILES = {
    "scrape": "originals/",
    "curate": "normalised/",
    "shard": "shards/",
    "embed": "embeddings/",
    "reorder": "reordered/",
    # Verify publishes only its manifest: this is the first of its two files, `latest.json` is the second.
    "verify": "manifests/verify/",
}


STEPS = {"scrape": 1040, "curate": 630, "shard": 265, "embed": 335, "reorder": 255}
"""About how many steps (tests/kill.py) each of these stages takes from its first file to its end."""
LOCKS = (".writer", ".writer-recipe")
QUICK, SLOW = (0, 0, 0, 1, 5), (0, 0, 1, 20, 400)
DELAYS_MS = {"scrape": QUICK, "curate": QUICK, "shard": SLOW, "embed": SLOW, "reorder": QUICK}
"""Milliseconds. In shard and embed a child or a model works for half a second between two steps."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a command is killed, counted from its first file."""

    stage: str
    steps: int
    delay_ms: int


def random_moments(seed: int, rounds: int) -> list[Moment]:
    """One moment a stage in each round; every round has the stages in another order."""
    dice = random.Random(seed)
    return [
        Moment(stage, dice.randrange(STEPS[stage]), dice.choice(DELAYS_MS[stage]))
        for _ in range(rounds)
        for stage in dice.sample(list(STEPS), len(STEPS))
    ]


MOMENTS = random_moments(seed=4, rounds=6)


def digests(lake: Lake) -> dict[str, str | None]:
    by_stage = {stage: manifests.latest(lake, stage) for stage in DATASET_STAGES}
    return {stage: manifest.digest if manifest else None for stage, manifest in by_stage.items()}


def with_stages(demo_lake: Lake, root: Path, before: str) -> Lake:
    """A copy of the lake as it was before the stage `before` first ran."""
    lake = Lake(str(root / "lake"), demo_lake.dataset)
    folders = {"scrape": ("originals", "catalogue"), "curate": ("curated", "normalised"), "shard": ("shards",)}
    folders |= {"embed": ("embeddings",), "reorder": ("reordered",)}
    for stage in DATASET_STAGES[: DATASET_STAGES.index(before)]:
        for folder in (*folders[stage], f"manifests/{stage}"):
            shutil.copytree(demo_lake.full(folder), lake.full(folder))
    return lake


def kill_in(stage: str, recipe: Recipe, lake: Lake, after: int, steps: int = 0, delay_ms: int = 0) -> str:
    remember_recipe(recipe, lake)
    recipe_file = Path(lake.root).parents[1] / "recipe.yaml"
    recipe_file.write_text(recipe.model_dump_json())
    command = [sys.executable, str(KILLING), FIRST_FILES[stage], *map(str, (after, steps, delay_ms))]
    command += [stage, str(recipe_file), "--lake", str(Path(lake.root).parent)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return killed.stdout


def left_behind(lake: Lake) -> list[int]:
    """Processes that still name this lake in their environment or command three seconds after a kill."""
    deadline = time.monotonic() + 3
    while True:
        processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        pids = [pid for pid in processes if names_lake(pid, lake.root)]
        if not pids or time.monotonic() > deadline:
            return pids
        time.sleep(0.1)


def names_lake(pid: int, root: str) -> bool:
    try:
        environment_and_command = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return pid != os.getpid() and root.encode() in environment_and_command


def paths_of(lake: Lake) -> set[str]:
    """Files and folders."""
    return {str(path.relative_to(lake.root)) for path in Path(lake.root).rglob("*")}


def check_nothing_is_left(lake: Lake, demo_lake: Lake) -> None:
    """No temporary file or folder is left, nor any file that an undisturbed run would not leave."""
    assert not list(Path(lake.root, ".scratch").iterdir()), "the killed run's scratch files are removed"
    hidden = {path for path in paths_of(lake) if Path(path).name.startswith(".")}
    assert hidden <= {".scratch", *LOCKS}
    assert paths_of(lake) - paths_of(demo_lake) - {*LOCKS, "recipe.json"} == set(), "left over"


def kill_and_go_on(
    stage: str, recipe: Recipe, demo_lake: Lake, root: Path, after: int, steps: int = 0, delay_ms: int = 0
) -> None:
    # More than one process, as in a real run: none of them may outlive it.
    recipe = recipe.model_copy(update={"shard": recipe.shard.model_copy(update={"processes": 2})})
    lake = with_stages(demo_lake, root, stage)
    output = kill_in(stage, recipe, lake, after, steps, delay_ms)
    assert f"killed after {FIRST_FILES[stage]}" in output
    assert delay_ms or "at its end" not in output, "this moment never came"
    assert not left_behind(lake), "processes that outlived the run"
    if stage != "verify" and not (steps or delay_ms):
        assert manifests.latest(lake, stage) is None, "killed before its manifest"
    for later in DATASET_STAGES[DATASET_STAGES.index(stage) :]:
        run_stage(later, recipe, lake)
    assert digests(lake) == digests(demo_lake)
    check_nothing_is_left(lake, demo_lake)


def named(moments: list[Moment]) -> list[object]:
    return [pytest.param(moment, id=f"{number}-{moment.stage}") for number, moment in enumerate(moments)]


@pytest.mark.parametrize("moment", named(MOMENTS)[1:2])
def test_a_run_killed_at_a_random_moment_ends_as_an_undisturbed_one(
    moment: Moment, demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path
) -> None:
    kill_and_go_on(moment.stage, demo_recipe, demo_lake, tmp_path, 1, moment.steps, moment.delay_ms)


@pytest.mark.proof
@pytest.mark.parametrize("moment", named(MOMENTS))
def test_a_run_killed_at_any_random_moment_ends_as_an_undisturbed_one(
    moment: Moment, demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path
) -> None:
    kill_and_go_on(moment.stage, demo_recipe, demo_lake, tmp_path, 1, moment.steps, moment.delay_ms)


def test_a_killed_verification_ends_as_an_undisturbed_one(demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path) -> None:
    kill_and_go_on("verify", demo_recipe, demo_lake, tmp_path, after=1)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("stage", "after"),
    [
        *[("scrape", 1), ("scrape", 60), ("curate", 1), ("curate", 3), ("shard", 1), ("shard", 2), ("shard", 5)],
        *[("embed", 1), ("embed", 9), ("reorder", 1), ("reorder", 2)],
    ],
)
def test_a_stage_killed_right_after_a_file_ends_as_an_undisturbed_one(
    stage: str, after: int, demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path
) -> None:
    kill_and_go_on(stage, demo_recipe, demo_lake, tmp_path, after)


@pytest.mark.proof
def test_the_whole_demo_in_another_place_has_the_same_digests(tmp_path: Path) -> None:
    lakes = [Lake(str(tmp_path / place), "demo") for place in ("one", "two")]
    for lake in lakes:
        for stage in DATASET_STAGES:
            run_stage(stage, demo(), lake)
    assert digests(lakes[0]) == digests(lakes[1])


def test_a_killed_run_does_not_do_finished_shards_again(demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path) -> None:
    lake = with_stages(demo_lake, tmp_path, "reorder")
    kill_in("reorder", demo_recipe, lake, after=3)
    inodes = {path: path.stat().st_ino for path in Path(lake.full("reordered")).rglob("*.npy")}
    # Two threads write: the other one may have published a file just before the kill.
    assert 3 <= len(inodes) < 14
    run_stage("reorder", demo_recipe, lake)
    # The shard in work has no part yet; it is made again with equal bytes, so its files are left as they are.
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert set(STAGES["reorder"].inputs) == {"shard", "embed"}
