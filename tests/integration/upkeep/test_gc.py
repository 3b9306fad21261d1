"""gc removes the files that nothing names; every stage that was done is still done afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from demo_clip_folder import CLIP
from s3_server import ObjectStore

from sp_data import manifest as manifests
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.stage import read_rows
from sp_data.dataset.verify import VerifyOptions
from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, run_stage, stand
from sp_data.recipe import Recipe
from sp_data.upkeep.collect_garbage import TEMPORARY, collect
from sp_data.wiki.catalogue import read_catalogue

from .conftest import NUM_WEEKS, checkpoint, configure, put, recipe_after

COMMAND = str(Path(sys.executable).with_name("sp-data"))
NOW = recipe_after(NUM_WEEKS)


def files_of(lake: Lake) -> set[str]:
    """Every file except locks."""
    root = Path(lake.root)
    paths = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith(".writer")}


def snapshots(lake: Lake, stage: str) -> list[Manifest]:
    return sorted(manifests.all_of(lake, stage), key=lambda manifest: manifest.made_at)


def first(lake: Lake, stage: str) -> Manifest:
    """The oldest snapshot: it has no previous one."""
    (oldest,) = (manifest for manifest in manifests.all_of(lake, stage) if manifest.previous is None)
    return oldest


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def lost(lake: Lake) -> list[str]:
    """Missing files that a manifest of the lake names."""
    all_manifests = [manifest for stage in DATASET_STAGES for manifest in manifests.all_of(lake, stage)]
    return [entry.path for manifest in all_manifests for entry, _ in manifests.missing_files(lake, manifest.files)]


def check_done(recipe: Recipe, lake: Lake) -> None:
    states = {name: status.state for name, status in stand(recipe, lake, until="verify").items()}
    assert states == dict.fromkeys(DATASET_STAGES, "done")
    assert lost(lake) == []


def test_a_first_dataset_has_nothing_to_remove(demo_recipe: Recipe, lake_copy: Lake) -> None:
    waste = collect(demo_recipe, lake_copy, keep=1)
    assert (waste.folders, waste.warnings) == ({}, [])


def test_the_fourth_snapshot_goes_and_every_stage_stays_done(weeks_copy: Lake) -> None:
    oldest = {stage: first(weeks_copy, stage).identity for stage in DATASET_STAGES}
    before = files_of(weeks_copy)
    waste = collect(NOW, weeks_copy)
    assert files_of(weeks_copy) == before, "a dry run removes nothing"
    removed = collect(NOW, weeks_copy, delete=True)
    assert removed.folders == waste.folders
    assert len(before - files_of(weeks_copy)) == removed.num_files > len(DATASET_STAGES)
    for stage in DATASET_STAGES:
        identities = {manifest.identity for manifest in manifests.all_of(weeks_copy, stage)}
        assert len(identities) == 3
        assert oldest[stage] not in identities
    check_done(NOW, weeks_copy)
    assert collect(NOW, weeks_copy, delete=True).folders == {}
    run_stage("verify", NOW, weeks_copy, options=VerifyOptions(deep=True))
    assert {run_stage(stage, NOW, weeks_copy).state for stage in DATASET_STAGES} == {"unchanged"}


def test_originals_stay_as_long_as_a_catalogue_or_a_shard_needs_them(weeks_copy: Lake) -> None:
    named = set(filter(None, read_catalogue(weeks_copy, latest(weeks_copy, "scrape"))["original"].to_pylist()))
    rows = [
        row for path in weeks_copy.list("shards") if path.endswith(".parquet") for row in read_rows(weeks_copy, path)
    ]
    in_shards = {row["path"] for row in rows if row["path"].startswith("originals/")}
    replaced = in_shards - named
    assert replaced, "some pictures were drawn again or deleted in these weeks"
    collect(NOW, weeks_copy, keep=1, delete=True)
    assert set(weeks_copy.list("originals")) == named | in_shards
    check_done(NOW, weeks_copy)


@pytest.mark.parametrize("path", ["shards/00001.tar", "embeddings/{clip}/img_emb/img_emb_00001.npy"])
def test_a_lost_file_still_comes_back_after_gc(weeks_copy: Lake, path: str) -> None:
    """A snapshot can be made again with the same bytes without earlier snapshots and their catalogues."""
    collect(NOW, weeks_copy, keep=1, delete=True)
    before = {stage: latest(weeks_copy, stage).digest for stage in DATASET_STAGES}
    weeks_copy.remove(path.format(clip=CLIP))
    for stage in DATASET_STAGES:
        run_stage(stage, NOW, weeks_copy)
    assert {stage: latest(weeks_copy, stage).digest for stage in DATASET_STAGES} == before
    check_done(NOW, weeks_copy)


def test_a_checkpoints_dataset_stays_whole(weeks_copy: Lake) -> None:
    oldest = first(weeks_copy, "verify")
    with Samples(oldest, weeks_copy, "train") as samples:
        keys = [samples[index]["key"] for index in range(len(samples))]
    checkpoint(weeks_copy, "decoder-1f0c55ab", oldest.digest)
    checkpoint(weeks_copy, "prior-00000000", "f" * 64)
    waste = collect(NOW, weeks_copy, keep=1, delete=True)
    assert [line for line in waste.warnings if "prior-00000000 step 4" in line and "no manifest any more" in line]
    for stage in DATASET_STAGES:
        identities = {manifest.identity for manifest in manifests.all_of(weeks_copy, stage)}
        assert first(weeks_copy, stage).identity in identities
        assert len(identities) == 2
    with Samples(oldest, weeks_copy, "train") as samples:
        assert [samples[index]["key"] for index in range(len(samples))] == keys
    assert set(oldest.inputs.values()) <= {
        manifest.digest for stage in DATASET_STAGES for manifest in snapshots(weeks_copy, stage)
    }
    check_done(NOW, weeks_copy)


TRAINING = """
    import sys
    from sp_data.lake import Lake
    with Lake(sys.argv[1], sys.argv[2]).writer("prior"):
        print("trains", flush=True)
        sys.stdin.read()
"""


def test_a_training_without_a_checkpoint_keeps_its_dataset_while_it_runs(weeks_copy: Lake) -> None:
    oldest = first(weeks_copy, "verify")
    configure(weeks_copy, "prior-1f0c55ab", oldest.digest)
    training = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINING), weeks_copy.url, weeks_copy.dataset],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert training.stdout is not None
    training.stdout.readline()
    try:
        collect(NOW, weeks_copy, keep=1, delete=True)
        assert first(weeks_copy, "verify").digest == oldest.digest
        assert all(weeks_copy.exists(shard["tar"]["path"]) for shard in oldest.details["shards"])
        check_done(NOW, weeks_copy)
    finally:
        training.kill()
        training.communicate()
    collect(NOW, weeks_copy, keep=1, delete=True)
    assert oldest.digest not in {manifest.digest for manifest in manifests.all_of(weeks_copy, "verify")}


@pytest.mark.parametrize("after", [1, 4, 12, 20])
def test_a_kill_in_the_middle_leaves_no_manifest_that_names_a_removed_file(
    weeks_copy: Lake, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    remove, removed = Lake.remove, 0

    def remove_and_die(self: Lake, path: str) -> None:
        nonlocal removed
        if removed == after:
            raise KeyboardInterrupt
        removed += 1
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "remove", remove_and_die)
        with pytest.raises(KeyboardInterrupt):
            collect(NOW, weeks_copy, keep=1, delete=True)
    check_done(NOW, weeks_copy)
    collect(NOW, weeks_copy, keep=1, delete=True)
    assert collect(NOW, weeks_copy, keep=1).folders == {}
    run_stage("verify", NOW, weeks_copy, options=VerifyOptions())


def test_temporary_files_go_unless_a_process_uses_them(demo_recipe: Recipe, lake_copy: Lake) -> None:
    root, dead_pid = Path(lake_copy.root), 999_999_999
    leftover = [
        f".scratch/shard-{dead_pid}-abc/00001.tar",
        "shards/.00001.tar.6f1d",
        f".out.export-{dead_pid}/metadata.jsonl",
    ]
    used = [f".scratch/shard-{os.getpid()}-abc/00001.tar", f".out.export-{os.getpid()}/metadata.jsonl"]
    for path in (*leftover, *used):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"kid")
    waste = collect(demo_recipe, lake_copy, delete=True)
    assert waste.folders == {TEMPORARY: (3, 9)}
    assert not any((root / path).exists() for path in leftover)
    assert all((root / path).exists() for path in used)
    assert collect(demo_recipe, lake_copy).folders == {}


def test_files_of_a_killed_stage_stay_for_the_next_run(demo_recipe: Recipe, lake_copy: Lake) -> None:
    for stage in ("embed", "reorder", "verify"):
        for path in lake_copy.list(f"manifests/{stage}"):
            if "/parts/" not in path:
                lake_copy.remove(path)
    embeddings = lake_copy.list("embeddings")
    waste = collect(demo_recipe, lake_copy, delete=True)
    assert waste.warnings == ["not done: embed, reorder, verify; what was made so far stays for the next run"]
    assert lake_copy.list("embeddings") == embeddings
    # A stage that is done has no use for a part.
    manifests.publish_part(lake_copy, "shard", manifests.ShardPart(name="00099", identity="x", files=()))
    assert collect(demo_recipe, lake_copy, delete=True).folders["manifests"][0] == 1


def test_an_interrupted_scrape_keeps_what_it_fetched(demo_recipe: Recipe, lake_copy: Lake) -> None:
    fetched = "originals/ab/" + "ab" * 20 + ".png"
    lake_copy.write_bytes(fetched, b"kid")
    lake_copy.write_bytes("wiki/journal/start.json", b"{}")
    assert collect(demo_recipe, lake_copy).folders == {}
    lake_copy.remove("wiki/journal/start.json")
    assert collect(demo_recipe, lake_copy).folders == {"originals": (1, 3)}


def test_files_that_gc_does_not_manage_are_left_alone(demo_recipe: Recipe, lake_copy: Lake) -> None:
    for path in ("quarantine/sha1-mismatch-x.png", "generated/a.png", "reports/a.html", "runs/prior-x/a", "mine/a.txt"):
        lake_copy.write_bytes(path, b"kid")
    before = files_of(lake_copy)
    collect(demo_recipe, lake_copy, delete=True)
    assert files_of(lake_copy) == before


def test_empty_folders_go(demo_recipe: Recipe, lake_copy: Lake) -> None:
    lake_copy.write_bytes("originals/zz/zz.png", b"kid")
    collect(demo_recipe, lake_copy, delete=True)
    assert not Path(lake_copy.full("originals/zz")).exists()


def test_less_than_one_snapshot_is_refused(demo_recipe: Recipe, lake_copy: Lake) -> None:
    with pytest.raises(UsageError, match=r"--keep 0: .* keep at least 1"):
        collect(demo_recipe, lake_copy, keep=0)


def test_a_recipe_that_was_changed_and_changed_back_keeps_both_snapshots(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """The newest snapshot does not descend from the one in between, which is recent all the same."""
    strict = demo_recipe.model_copy(update={"verify": demo_recipe.verify.model_copy(update={"min_cosine": 0.99})})
    run_stage("verify", strict, lake_copy)
    run_stage("verify", demo_recipe, lake_copy)
    assert len({manifest.digest for manifest in manifests.all_of(lake_copy, "verify")}) == 1, (
        "both have the same digest"
    )
    assert collect(demo_recipe, lake_copy).folders == {}
    assert collect(demo_recipe, lake_copy, keep=1, delete=True).folders["manifests"][0] == 1
    check_done(demo_recipe, lake_copy)


def test_the_command_reports_the_waste_as_json(weeks_copy: Lake) -> None:
    def gc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, "gc", "--lake", weeks_copy.url, *arguments], capture_output=True, text=True)

    shutil.rmtree(Path(weeks_copy.root) / "index", ignore_errors=True)
    output = json.loads(gc("--json", "--recipe", "demo").stdout)
    assert (output["dataset"], output["deleted"]) == ("demo", False)
    assert output["files"] == sum(folder["files"] for folder in output["folders"].values()) > 6
    process = gc("--delete")
    assert process.returncode == 0, process.stderr
    assert f"{output['files']:,} files" in process.stdout.splitlines()[-1]
    assert json.loads(gc("--json").stdout)["files"] == 0


def test_a_lake_on_s3_loses_the_same_files(weeks_copy: Lake, s3: ObjectStore) -> None:
    lake = put(weeks_copy, s3)
    assert collect(NOW, lake, delete=True).folders == collect(NOW, weeks_copy, delete=True).folders
    assert set(lake.list("manifests")) == set(weeks_copy.list("manifests"))
    assert {path for path in files_of(weeks_copy) if "/" in path} == {
        path
        for folder in {path.split("/")[0] for path in files_of(weeks_copy) if "/" in path}
        for path in lake.list(folder)
    }
    check_done(NOW, lake)
    assert collect(NOW, lake).folders == {}
