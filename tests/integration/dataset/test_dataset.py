"""The dataset stages on a hundred kids: the files in the lake afterwards, and the effect of a second run."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from demo_clip_folder import CLIP

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_dropped, read_kept
from sp_data.dataset.shards.stage import _base
from sp_data.dataset.shards.tars import read_tar
from sp_data.errors import MadeByNewer, StageError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, STAGES, found_unchanged, run_stage, stage_run, stand
from sp_data.recipe import Recipe, load_recipe
from sp_data.upkeep.why import fate_of, fates


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def files_of(lake: Lake) -> dict[str, tuple[int, int]]:
    """Path -> (inode, time of writing) of every file, which distinguish a file made again from one left alone."""
    paths = [path for path in Path(lake.root).rglob("*") if path.is_file() and path.name != ".writer"]
    return {str(path.relative_to(lake.root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_every_stage_takes_in_what_the_previous_stage_let_out(demo_lake: Lake) -> None:
    by_stage = {stage: latest(demo_lake, stage) for stage in DATASET_STAGES}
    for before, after in itertools.pairwise(DATASET_STAGES):
        assert by_stage[after].counts.in_ == by_stage[before].counts.out, f"{before} -> {after}"
    for after in DATASET_STAGES[1:]:
        assert by_stage[after].inputs == {before: by_stage[before].digest for before in STAGES[after].inputs}
    assert by_stage["scrape"].counts.in_ > 100
    assert by_stage["verify"].counts.out >= 95


def test_the_awkward_pictures_are_dropped_for_their_reasons(demo_lake: Lake) -> None:
    reasons = Counter(row["reason"] for row in read_dropped(demo_lake, latest(demo_lake, "curate")).to_pylist())
    assert reasons == {"cut-off": 1, "duplicate": 1, "near-duplicate": 2, "opted-out": 1, "too-small": 1}


def test_a_sample_is_the_same_picture_in_every_file(demo_lake: Lake) -> None:
    """Follow every key through tar, embeddings' metadata and reordered rows."""
    sharded, embedded = latest(demo_lake, "shard"), latest(demo_lake, "embed")
    layout = KeyLayout.parse(sharded.details["layout"])
    captions = {row["title"]: row["caption"] for row in read_kept(demo_lake, latest(demo_lake, "curate")).to_pylist()}
    titles = set()
    for shard in sharded.details["shards"]:
        name = layout.shard_name(shard["number"])
        clip = embedded.details["clip"]
        metadata = pq.read_table(demo_lake.full(f"embeddings/{clip}/metadata/metadata_{name}.parquet")).to_pylist()
        partition = np.load(demo_lake.full(f"embeddings/{clip}/img_emb/img_emb_{name}.npy"))
        reordered = np.load(demo_lake.full(f"reordered/{clip}/img_emb/img_emb_{name}.npy"))
        row_of = {row["image_path"]: row for row in metadata}
        for key, parts in read_tar(Path(demo_lake.full(f"shards/{name}.tar"))):
            fields = json.loads(parts["json"])
            assert fields["key"] == key
            assert parts["txt"].decode() == fields["caption"] == captions[fields["title"]] == row_of[key]["caption"]
            row = [row["image_path"] for row in metadata].index(key)
            np.testing.assert_array_equal(reordered[layout.split(key)[1]], partition[row])
            assert fields["url"].startswith("http://paper-kids.localhost/")
            assert fields["split"] == shard["split"]
            titles.add(fields["title"])
    assert titles == set(captions)


def test_pictures_and_captions_mean_the_same(demo_lake: Lake) -> None:
    """The tiny CLIP knows what a red coat is, so pictures paired with a neighbour's caption would fail here."""
    layout = KeyLayout.parse(latest(demo_lake, "shard").details["layout"])
    own, other = [], []
    for shard in latest(demo_lake, "shard").details["shards"]:
        name = layout.shard_name(shard["number"])
        image, text = (
            np.load(demo_lake.full(f"reordered/{CLIP}/{kind}/{kind}_{name}.npy")).astype(np.float32)
            for kind in ("img_emb", "text_emb")
        )
        own += (image * text).sum(axis=1).tolist()
        other += (image * np.roll(text, 1, axis=0)).sum(axis=1).tolist()
    assert np.mean(own) > 0.85
    assert np.mean(other) < 0.5


def test_shards_do_not_tell_where_they_were_made(demo_lake: Lake) -> None:
    for path in Path(demo_lake.full("shards")).glob("*.tar"):
        assert str(demo_lake.root).encode() not in path.read_bytes()
    for path in Path(demo_lake.full("shards")).glob("*.parquet"):
        assert not any("file://" in str(row) for row in pq.read_table(path).to_pylist())


def test_a_second_run_writes_nothing(demo_recipe: Recipe, lake_copy: Lake) -> None:
    before = files_of(lake_copy)
    assert [run_stage(stage, demo_recipe, lake_copy).state for stage in DATASET_STAGES] == ["unchanged"] * len(
        DATASET_STAGES
    )
    assert files_of(lake_copy) == before


@pytest.mark.parametrize("kind", ["img_emb", "text_emb"])
def test_a_lost_reordered_file_is_made_again_and_only_that(demo_recipe: Recipe, lake_copy: Lake, kind: str) -> None:
    before, digests = files_of(lake_copy), {stage: latest(lake_copy, stage).digest for stage in DATASET_STAGES}
    lost = f"reordered/{CLIP}/{kind}/{kind}_00001.npy"
    Path(lake_copy.full(lost)).unlink()
    assert stand(demo_recipe, lake_copy)["reorder"].state == "damaged"
    states = {stage: run_stage(stage, demo_recipe, lake_copy).state for stage in DATASET_STAGES}
    assert states.pop("reorder") == "done"
    assert set(states.values()) == {"unchanged"}
    after = files_of(lake_copy)
    written = {path for path in after if after[path] != before.get(path)}
    assert {path for path in written if not path.startswith("manifests/reorder/")} == {lost}
    assert {stage: latest(lake_copy, stage).digest for stage in DATASET_STAGES} == digests


@pytest.mark.parametrize(
    "lost",
    [
        "shards/00001.tar",
        "shards/00001.parquet",
        f"embeddings/{CLIP}/img_emb/img_emb_00001.npy",
        f"embeddings/{CLIP}/metadata/metadata_00001.parquet",
    ],
)
def test_any_lost_file_comes_back_with_the_same_bytes(demo_recipe: Recipe, lake_copy: Lake, lost: str) -> None:
    digests = {stage: latest(lake_copy, stage).digest for stage in DATASET_STAGES}
    Path(lake_copy.full(lost)).unlink()
    for stage in DATASET_STAGES:
        run_stage(stage, demo_recipe, lake_copy)
    assert {stage: latest(lake_copy, stage).digest for stage in DATASET_STAGES} == digests


def test_a_lost_original_is_noticed_and_comes_back(demo_recipe: Recipe, lake_copy: Lake) -> None:
    lost = next(Path(lake_copy.full("originals")).rglob("*.png"))
    data = lost.read_bytes()
    lost.unlink()
    status = stand(demo_recipe, lake_copy)["scrape"]
    assert status.state == "damaged"
    assert str(lost) in status.reason
    run_stage("scrape", demo_recipe, lake_copy)
    assert lost.read_bytes() == data
    assert stand(demo_recipe, lake_copy)["scrape"].state == "done"


def test_a_stage_names_its_missing_input(demo_recipe: Recipe, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "demo")
    with pytest.raises(StageNotDone, match=r"embed needs shard of dataset 'demo', which is missing"):
        run_stage("embed", demo_recipe, lake)


def test_a_changed_recipe_makes_the_later_stages_stale(demo_lake: Lake) -> None:
    changed = load_recipe("demo", ["source.demo.num_kids=100", "shard.samples_per_shard=20", "curate.min_side_px=65"])
    states = {name: status.state for name, status in stand(changed, demo_lake, until="verify").items()}
    assert states == {"scrape": "done", **dict.fromkeys(DATASET_STAGES[1:], "stale")}
    assert "min_side_px = 65, it was 64" in stand(changed, demo_lake)["curate"].reason
    with pytest.raises(StageNotDone, match=r"needs curate .* stale .*min_side_px"):
        run_stage("shard", changed, demo_lake)


def test_an_empty_dataset_is_refused_with_the_reasons(lake_copy: Lake) -> None:
    strict = load_recipe("demo", ["source.demo.num_kids=100", "shard.samples_per_shard=20", "curate.min_side_px=5000"])
    assert run_stage("curate", strict, lake_copy).manifest.counts.out == 0
    with pytest.raises(StageError, match=r"kept none of 112 pictures \(.*too-small 1\d\d\)"):
        run_stage("shard", strict, lake_copy)


def test_every_file_of_the_wiki_has_one_fate(demo_lake: Lake) -> None:
    by_title = {fate.title: fate for fate in fates(demo_lake)}
    assert len(by_title) == latest(demo_lake, "scrape").counts.in_
    kept = [fate for fate in by_title.values() if not fate.reason]
    assert len(kept) == latest(demo_lake, "verify").counts.out
    assert len({fate.key for fate in kept}) == len(kept)
    assert by_title["File:Theme song.ogg"].reason == "mime-not-wanted (application/ogg)"
    assert str(by_title["File:Gus Stone copy.png"]).endswith(
        "dropped by curate: duplicate: same bytes as File:Gus Stone.png"
    )


def test_no_shard_number_is_used_twice(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """Whatever version of the stage used it, and even if only the dataset of a trained model still names it."""
    num_shards = len(latest(lake_copy, "shard").details["shards"])
    stage = STAGES["shard"]

    def first_new(version: int = stage.version) -> int:
        curated = latest(lake_copy, "curate")
        assert curated is not None
        another = curated.model_copy(update={"digest": "another"})
        run = replace(stage_run("shard", demo_recipe, lake_copy, {"curate": another}), version=version)
        return _base(run, frozenset()).first_new

    assert first_new() == num_shards
    assert first_new(version=99) == num_shards
    for path in lake_copy.list("manifests/shard"):
        lake_copy.remove(path)
    assert first_new() == num_shards


@pytest.mark.parametrize("lost", ["latest.json", "by identity"])
def test_a_lost_manifest_of_the_shards_comes_back_with_its_digest(
    demo_recipe: Recipe, lake_copy: Lake, lost: str
) -> None:
    before = latest(lake_copy, "shard")
    assert before is not None
    name = f"{before.identity}.json" if lost == "by identity" else lost
    lake_copy.remove(f"manifests/shard/{name}")
    assert run_stage("shard", demo_recipe, lake_copy).manifest.digest == before.digest


@pytest.mark.parametrize("change", [{"version": STAGES["embed"].version + 1}, {"field_of_tomorrow": 1}])
def test_what_a_newer_version_made_is_refused_and_kept(
    demo_recipe: Recipe, lake_copy: Lake, change: dict[str, int]
) -> None:
    path = Path(lake_copy.full("manifests/embed/latest.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = path.read_bytes()
    for stage in ("embed", "reorder"):
        with pytest.raises(MadeByNewer, match=r"manifests/embed/latest\.json was made by a newer version of sp-data"):
            run_stage(stage, demo_recipe, lake_copy)
    with pytest.raises(MadeByNewer):
        found_unchanged(demo_recipe, lake_copy, "verify")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["File:Gus Stone.png", "file:gus_Stone.png", "Gus%20Stone.png", "gus Stone.png"])
def test_why_takes_a_title_however_it_is_written(name: str, demo_lake: Lake) -> None:
    assert fate_of(name.replace("file:", "File:"), demo_lake).title == "File:Gus Stone.png"
