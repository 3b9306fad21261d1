"""Compaction: live samples of shards not worth keeping move to new ones: new keys, the same embeddings."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from foreign_dataset import foreign
from s3_server import ObjectStore
from shared_lake import copied

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_kept
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.tars import read_tar
from sp_data.dataset.verify import VerifyOptions
from sp_data.errors import StageError, StageNotDone
from sp_data.exchange.imports.run import import_dataset
from sp_data.kept_recipe import recall_recipe
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, run_stage, stand
from sp_data.recipe import Recipe
from sp_data.upkeep.collect_garbage import collect
from sp_data.upkeep.compact import DEAD, FORGOTTEN, SMALL_ONES, compact, shards_to_remove
from sp_data.upkeep.forget import forget
from sp_data.upkeep.why import fates
from sp_data.wiki.catalogue import catalogue_rows, read_catalogue
from sp_data.wiki.forgotten import Forgotten

from .conftest import checkpoint, interrupted_after, put, recipe_after

COMMAND = str(Path(sys.executable).with_name("sp-data"))
KID = "File:Gus Stone.png"


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def digests(lake: Lake) -> dict[str, str]:
    return {stage: latest(lake, stage).digest for stage in DATASET_STAGES}


def numbers(lake: Lake) -> set[int]:
    return {shard["number"] for shard in latest(lake, "shard").details["shards"]}


def pairs(lake: Lake) -> dict[str, tuple[str, bytes, bytes]]:
    """Title and caption -> split, image and text embedding of every sample that the loader gives."""
    verified, by_caption = latest(lake, "verify"), {}
    titles = {fate.key: fate.title for fate in fates(lake)}
    for split in ("train", "val", "test"):
        with Samples(verified, lake, split) as samples:
            for index in range(len(samples)):
                sample = samples[index]
                rows = (sample["image_embed"].numpy().tobytes(), sample["text_embed"].numpy().tobytes())
                by_caption[f"{titles[sample['key']]}: {sample['caption']}"] = (split, *rows)
    return by_caption


def check_done(recipe: Recipe, lake: Lake) -> None:
    states = {name: status.state for name, status in stand(recipe, lake, until="verify").items()}
    assert states == dict.fromkeys(DATASET_STAGES, "done")
    run_stage("verify", recipe, lake, options=VerifyOptions(deep=True, reembed=4))


def in_shard(lake: Lake, number: int) -> list[str]:
    """Titles of a shard's live samples."""
    return [fate.title for fate in fates(lake) if fate.key.startswith(f"{number:05d}") and not fate.reason]


def bury(lake: Lake, number: int, count: int) -> None:
    """Mark pictures of a shard as deleted from the wiki: their rows of the catalogue become 'not-found'."""
    from sp_data.wiki.publish import republish_catalogue

    deleted = set(in_shard(lake, number)[:count])
    newest = latest(lake, "scrape")
    rows = [
        row.model_copy(update={"status": "not-found", "original": None}) if row.title in deleted else row
        for row in catalogue_rows(read_catalogue(lake, newest))
    ]
    republish_catalogue(lake, newest, rows)


@pytest.fixture(scope="module")
def forgotten_lake(demo_recipe: Recipe, demo_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A dataset with a forgotten picture in one of its tars; not written to."""
    lake = copied(demo_lake, tmp_path_factory.mktemp("forgotten"))
    forget([KID], demo_recipe, lake)
    return lake


@pytest.fixture(scope="module")
def undisturbed(demo_recipe: Recipe, forgotten_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The same after a compaction; not written to."""
    lake = copied(forgotten_lake, tmp_path_factory.mktemp("undisturbed"))
    compact(demo_recipe, lake)
    return lake


def test_a_sound_dataset_is_left_alone(demo_recipe: Recipe, lake_copy: Lake) -> None:
    before = {path: lake_copy.size(path) for path in lake_copy.list("manifests")}
    compacted = compact(demo_recipe, lake_copy)
    assert (compacted.state, compacted.removed, str(compacted)) == ("unchanged", {}, "unchanged")
    assert {path: lake_copy.size(path) for path in lake_copy.list("manifests")} == before


def test_a_shard_with_a_forgotten_picture_leaves_and_the_others_stay(demo_recipe: Recipe, lake_copy: Lake) -> None:
    outcome = forget([KID], demo_recipe, lake_copy)
    before, pairs_before, numbers_before = latest(lake_copy, "shard"), pairs(lake_copy), numbers(lake_copy)
    stamps = {path: Path(lake_copy.full(path)).stat().st_mtime_ns for path in lake_copy.list("embeddings")}
    compacted = compact(demo_recipe, lake_copy)
    assert (compacted.state, compacted.removed) == ("done", dict.fromkeys(outcome.shards, FORGOTTEN))
    assert compacted.stages == ("embed", "reorder", "verify")
    after = latest(lake_copy, "shard")
    assert (after.identity, after.counts, after.details["tombstones"]) == (before.identity, before.counts, [])
    assert after.digest != before.digest
    assert numbers(lake_copy) == numbers_before - set(outcome.shards) | {max(numbers_before) + 1}
    assert pairs(lake_copy) == pairs_before, "the same pictures with the same embeddings, in the same splits"
    assert {path: Path(lake_copy.full(path)).stat().st_mtime_ns for path in stamps} == stamps, (
        "nothing is written again"
    )
    check_done(demo_recipe, lake_copy)
    assert compact(demo_recipe, lake_copy).state == "unchanged"
    assert {run_stage(stage, demo_recipe, lake_copy).state for stage in DATASET_STAGES} == {"unchanged"}


def test_more_than_a_fifth_of_tombstones_is_too_many(demo_recipe: Recipe, lake_copy: Lake) -> None:
    full = next(shard for shard in latest(lake_copy, "shard").details["shards"] if shard["num_rows"] == 20)
    bury(lake_copy, full["number"], 4)
    for stage in DATASET_STAGES[1:]:
        run_stage(stage, demo_recipe, lake_copy)
    assert shards_to_remove(latest(lake_copy, "shard"), lake_copy, Forgotten()) == {}
    bury(lake_copy, full["number"], 1)
    for stage in DATASET_STAGES[1:]:
        run_stage(stage, demo_recipe, lake_copy)
    before = pairs(lake_copy)
    assert compact(demo_recipe, lake_copy).removed == {full["number"]: DEAD}
    assert pairs(lake_copy) == before
    check_done(demo_recipe, lake_copy)


def test_four_tiny_shards_of_a_split_become_one(weeks_lake: Lake, weeks_copy: Lake) -> None:
    """Three weeks leave three tiny shards; the fourth is worth a compaction."""
    of_train = [shard for shard in latest(weeks_copy, "shard").details["shards"] if shard["split"] == "train"]
    tiny = [shard["number"] for shard in of_train if shard["num_rows"] < 5]
    assert len(tiny) == 3
    assert compact(recipe_after(3), weeks_copy).state == "unchanged"
    weeks, num_tiny = 3, len(tiny)
    while num_tiny < 4:
        weeks += 1
        for stage in DATASET_STAGES:
            run_stage(stage, recipe_after(weeks), weeks_copy)
        of_train = [shard for shard in latest(weeks_copy, "shard").details["shards"] if shard["split"] == "train"]
        tiny = [shard["number"] for shard in of_train if shard["num_rows"] < 5]
        num_tiny = len(tiny)
    before, numbers_before = pairs(weeks_copy), numbers(weeks_copy)
    compacted = compact(recipe_after(weeks), weeks_copy)
    assert compacted.removed == dict.fromkeys(tiny, SMALL_ONES)
    assert len(compacted.added) == 1
    assert numbers(weeks_copy) == numbers_before - set(tiny) | set(compacted.added)
    assert pairs(weeks_copy) == before
    check_done(recipe_after(weeks), weeks_copy)
    assert compact(recipe_after(weeks), weeks_copy).state == "unchanged"


# After the tar, the part, the manifest, `latest.json`, and some files of the following stages.
@pytest.mark.parametrize(
    "after", [5, *(pytest.param(other, marks=pytest.mark.proof) for other in (1, 2, 3, 4, 6, 8, 12))]
)
def test_a_kill_at_any_moment_and_the_second_run_has_the_same_result(
    demo_recipe: Recipe,
    forgotten_lake: Lake,
    undisturbed: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    lake = copied(forgotten_lake, tmp_path)
    with interrupted_after(monkeypatch, after):
        compact(demo_recipe, lake)
    compact(demo_recipe, lake)
    assert digests(lake) == digests(undisturbed)
    assert compact(demo_recipe, lake).state == "unchanged"


@pytest.mark.parametrize("lost", [pytest.param("first", marks=pytest.mark.proof), "new"])
def test_a_lost_shard_of_a_compacted_dataset_comes_back(
    demo_recipe: Recipe, undisturbed: Lake, tmp_path: Path, lost: str
) -> None:
    lake = copied(undisturbed, tmp_path)
    collect(demo_recipe, lake, keep=1, delete=True)
    shards = sorted(numbers(lake))
    lake.remove(f"shards/{shards[0] if lost == 'first' else shards[-1]:05d}.tar")
    for stage in DATASET_STAGES:
        run_stage(stage, demo_recipe, lake)
    assert digests(lake) == digests(undisturbed)


def fetched(lake: Lake, into: Path) -> Path:
    """Download every object of a dataset, whatever its name."""
    for name in lake.fs.find(lake.root):
        file = into / name.removeprefix(lake.fs._strip_protocol(lake.root) + "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        lake.fs.get_file(name, str(file))
    return into


def holds(path: Path, sha256s: set[str], name: str) -> bool:
    """Whether a file, or a file in a tar, has one of these sha256 digests, or the path contains the name."""
    if name in str(path) or hashlib.sha256(path.read_bytes()).hexdigest() in sha256s:
        return True
    if path.suffix != ".tar":
        return False
    with tarfile.open(path) as tar:
        files = (tar.extractfile(member) for member in tar)
        return any(hashlib.sha256(file.read()).hexdigest() in sha256s for file in files if file)


@pytest.mark.parametrize(("was_learnt_from", "remote"), [(False, False), (True, True)], ids=["on a disk", "on S3"])
def test_after_forget_compact_and_gc_its_bytes_are_nowhere(
    demo_recipe: Recipe, lake_copy: Lake, s3: ObjectStore, tmp_path: Path, was_learnt_from: bool, remote: bool
) -> None:
    """Not even a checkpoint that learnt from it keeps them (`was_learnt_from`)."""
    lake = lake_copy if not remote else put(lake_copy, s3)
    row = next(row for row in catalogue_rows(read_catalogue(lake, latest(lake, "scrape"))) if row.title == KID)
    (key,) = (fate.key for fate in fates(lake) if fate.title == KID)
    jpeg = dict(read_tar(Path(lake_copy.full(f"shards/{key[:5]}.tar"))))[key]["jpg"]
    wanted = {hashlib.sha256(data).hexdigest() for data in (jpeg, lake.read_bytes(row.original or ""))}
    embedding = next(pair for name, pair in pairs(lake).items() if name.startswith(KID))[1]
    half = np.frombuffer(embedding, np.float32).astype(np.float16).tobytes()

    def folders_that_hold_it() -> Counter[str]:
        root = Path(lake.root) if lake.is_local else fetched(lake, tmp_path / uuid.uuid4().hex)
        files = [path for path in root.rglob("*") if path.is_file()]
        counts = Counter(str(path.relative_to(root)).split("/")[0] for path in files if holds(path, wanted, row.sha1))
        return counts + Counter({"embedded": sum(half in path.read_bytes() for path in files if path.suffix == ".npy")})

    assert folders_that_hold_it() == {"originals": 1, "shards": 1, "embedded": 2}
    if was_learnt_from:
        checkpoint(lake, "decoder-11111111", latest(lake, "verify").digest)
    forget([KID], demo_recipe, lake)
    assert folders_that_hold_it() == {"shards": 1, "embedded": 2}
    compact(demo_recipe, lake)
    waste = collect(demo_recipe, lake, keep=1, delete=True)
    assert folders_that_hold_it() == {}
    assert (
        any("holds forgotten pictures: it is not kept for that" in line for line in waste.warnings) is was_learnt_from
    )
    check_done(demo_recipe, lake)
    assert len(read_kept(lake, latest(lake, "curate"))) == len(pairs(lake))
    if was_learnt_from:
        assert forget([KID], demo_recipe, lake).checkpoints_unknown != ()


def test_shards_that_are_not_up_to_date_are_not_compacted(demo_recipe: Recipe, lake_copy: Lake) -> None:
    changed = demo_recipe.model_copy(update={"curate": demo_recipe.curate.model_copy(update={"min_side_px": 65})})
    with pytest.raises(StageNotDone, match=r"compact needs shard of dataset 'demo', which is stale"):
        compact(changed, lake_copy)


def test_an_imported_dataset_is_refused_with_what_to_do(demo_lake: Lake, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "theirs")
    import_dataset(foreign(demo_lake, tmp_path / "theirs"), lake)
    recipe = recall_recipe(lake)
    assert recipe is not None
    with pytest.raises(StageError, match=r"was imported: .* cannot be compacted; .* run `sp-data import` again"):
        compact(recipe, lake)


def test_the_command(forgotten_lake: Lake, tmp_path: Path) -> None:
    lake = copied(forgotten_lake, tmp_path)

    def sp_data(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, "compact", *arguments, "--lake", lake.url], capture_output=True, text=True)

    output = json.loads(sp_data("--json").stdout)
    assert (output["state"], output["stages"]) == ("done", ["embed", "reorder", "verify"])
    assert [shard["reason"] for shard in output["removed"]] == ["forgotten"]
    assert output["moved"] > 0
    assert sp_data("demo").stdout == "demo: unchanged\n"


def test_a_parquet_lost_from_a_shard_that_stayed_rewrites_no_other_shard(weeks_copy: Lake) -> None:
    recipe = recipe_after(3)
    titles = set(in_shard(weeks_copy, 0))
    before = {number: weeks_copy.read_bytes(f"shards/{number:05d}.tar") for number in numbers(weeks_copy)}
    weeks_copy.remove("shards/00000.parquet")
    for stage in DATASET_STAGES:
        run_stage(stage, recipe, weeks_copy)
    assert {number: weeks_copy.read_bytes(f"shards/{number:05d}.tar") for number in before} == before
    new = numbers(weeks_copy) - before.keys()
    assert (numbers(weeks_copy) & before.keys(), min(new)) == (before.keys() - {0}, max(before) + 1)
    assert {title for number in new for title in in_shard(weeks_copy, number)} == titles
    check_done(recipe, weeks_copy)
