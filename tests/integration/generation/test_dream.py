"""Pictures by a dataset's checkpoints: each records which, the judge reads them, and the report shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sp_data import manifest as manifests
from sp_data.errors import StageError, StageNotDone, UsageError
from sp_data.generation.files import PictureFolder
from sp_data.generation.gallery import nearest
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.models import Models, load_models
from sp_data.generation.picture import read_origin
from sp_data.judge.stage import judge_folder
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import STAGES
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests, write_report
from sp_data.training import checkpoints

from .drawing import RED, ROUNDING, SHORT, differ


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def test_fresh_models_draw_the_same_bytes_as_resident_ones(
    trained_models: Models, trained_lake: Lake, quick_recipe: Recipe
) -> None:
    resident = ImageGenerator(trained_models, "fp32")
    together = list(resident.dream([RED], num_pictures=8, options=SHORT))
    fresh = ImageGenerator(load_models(quick_recipe, trained_lake), "fp32")
    for seed in (0, 7):
        one, other = (next(generator.dream([RED], seed=seed, options=SHORT)) for generator in (resident, fresh))
        assert one.png() == other.png()
        assert one.picture.size == (64, 64)
        assert differ(one.picture, together[seed].picture) <= ROUNDING


def test_a_picture_names_what_made_it(trained_models: Models, trained_lake: Lake, quick_recipe: Recipe) -> None:
    (made,) = ImageGenerator(trained_models, "fp32").dream([RED], seed=7)
    origin = read_origin(made.png(), "it")
    verified = latest(trained_lake, "verify")
    assert (origin["kind"], origin["prompt"], origin["seed"]) == ("dream", RED, 7)
    for kind in ("prior", "decoder"):
        made_by = origin[kind] if kind == "decoder" else [origin[kind]]
        best = [network["best"] for network in latest(trained_lake, kind).details["networks"]]
        assert [network["weights"] for network in made_by] == [each["digest"] for each in best]
        assert [network["step"] for network in made_by] == [each["step"] for each in best]
        assert {network["dataset"] for network in made_by} == {verified.digest}
    assert origin["clip"] == verified.details["clip"]
    assert origin["steps"] == [quick_recipe.decoder.sample_timesteps] * 2
    assert origin["prior_steps"] == quick_recipe.prior.sample_timesteps


def test_the_judge_reads_pictures_by_their_own_prompts(
    trained_models: Models, trained_lake: Lake, tmp_path: Path
) -> None:
    prompt = "a kid in a red coat and a teal cap at the lake"
    made = ImageGenerator(trained_models, "fp32").dream([prompt, "a samurai"], num_pictures=2, options=SHORT)
    written = list(PictureFolder(trained_lake, tmp_path / "out").write_each(made))
    assert len(written) == 4
    table = judge_folder(tmp_path / "out")
    assert (table["all"]["n"], table["unseen"]["n"]) == (2, 2)


def test_without_a_checkpoint_there_is_no_dream(demo_lake: Lake, demo_recipe: Recipe) -> None:
    with pytest.raises(StageNotDone, match="has no checkpoint of a prior; run `sp-data train prior demo"):
        load_models(demo_recipe, demo_lake)


def test_a_checkpoint_that_is_named_draws_and_one_that_is_none_is_refused(
    trained_lake: Lake, quick_recipe: Recipe
) -> None:
    run = latest(trained_lake, "prior").details["networks"][0]["run"]
    first, *_, last = checkpoints.of_run(trained_lake, run)
    for named, expected in ((["latest"], last), ([first.folder], first), ([trained_lake.full(first.folder)], first)):
        assert load_models(quick_recipe, trained_lake, named).prior_weights.origin["step"] == expected.step
    with pytest.raises(UsageError, match=r"runs/none"):
        load_models(quick_recipe, trained_lake, ["runs/none"])


def test_a_checkpoint_that_vanished_gives_way_to_the_best_that_is_left(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    (network,) = latest(trained_copy, "prior").details["networks"]
    best = network["best"]["folder"]
    trained_copy.remove(f"{best}/{checkpoints.RECORD}")
    left = load_models(quick_recipe, trained_copy).prior_weights.origin
    assert left["step"] != network["best"]["step"]
    assert left["step"] == checkpoints.best(checkpoints.of_run(trained_copy, network["run"])).step
    with pytest.raises(UsageError, match=f"{best}"):
        load_models(quick_recipe, trained_copy, [best])


def test_models_of_another_clip_are_refused_by_name(trained_lake: Lake, quick_recipe: Recipe) -> None:
    embed = quick_recipe.embed.model_copy(update={"name": "other"})
    other = quick_recipe.model_copy(update={"embed": embed})
    with pytest.raises(StageError, match=r"was trained on embeddings of tiny-\w+, but the CLIP is other-"):
        load_models(other, trained_lake)


def test_the_nearest_picture_of_a_training_picture_is_itself(trained_lake: Lake) -> None:
    verified = latest(trained_lake, "verify")
    shard = next(shard for shard in verified.details["shards"] if shard["split"] == "train")
    rows = np.load(trained_lake.full(shard["img_emb"]["path"])).astype(np.float32)
    neighbours = nearest(rows[:5], verified, trained_lake)
    assert [neighbour.cosine for neighbour in neighbours] == pytest.approx([1.0] * 5, abs=1e-3)
    assert [int(neighbour.key[-2:]) for neighbour in neighbours] == [0, 1, 2, 3, 4]
    assert all(neighbour.title.startswith("File:") and neighbour.page for neighbour in neighbours)


def test_the_page_shows_prompt_picture_and_neighbour(trained_copy: Lake, quick_recipe: Recipe) -> None:
    by_stage = load_manifests(trained_copy, STAGES)
    page = Path(trained_copy.full(write_report(quick_recipe, trained_copy, by_stage))).read_text("utf-8")
    for verdict in by_stage["judge"].details["verdicts"]:
        assert verdict["prompt"] in page
    assert page.count('class="drawn"') == 4
    assert page.count("nearest: ") == 4
    assert page.count("<svg") == 3
    assert page.count('class="steps"') == 2, "each unet's pictures by step"
    for kind in ("prior", "decoder"):
        for network in by_stage[kind].details["networks"]:
            assert network["run"] in page
    assert "From a picture back to a page" in page


def test_without_a_judge_the_page_shows_captions_that_training_did_not_see(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    by_stage = {stage: manifest for stage, manifest in load_manifests(trained_copy, STAGES).items() if stage != "judge"}
    page = Path(trained_copy.full(write_report(quick_recipe, trained_copy, by_stage))).read_text("utf-8")
    assert page.count('class="drawn"') > 1
    assert "What the judge says" not in page
