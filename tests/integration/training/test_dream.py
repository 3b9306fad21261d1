"""Pictures from words: the same seed is the same bytes, and each says how it was made."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sp_data import manifest as manifests
from sp_data.errors import CorruptFile, UsageError
from sp_data.generation.dream import CHUNK, Order, SamplingOptions, dream, orders, read_origin
from sp_data.generation.gallery import nearest
from sp_data.generation.models import Models, load_models
from sp_data.judge.stage import judge_folder
from sp_data.lake import Lake
from sp_data.pipeline import STAGES
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests, write_report

RED, BLUE = "a kid in a red coat", "a kid in a blue coat"


@pytest.fixture(scope="session")
def models(trained_lake: Lake, quick_recipe: Recipe) -> Models:
    return load_models(quick_recipe, trained_lake)


def png(models: Models, *asked: Order) -> list[bytes]:
    return [one.png() for one in dream(models, list(asked))]


def test_the_same_seed_is_the_same_bytes_and_another_seed_another_picture(models: Models) -> None:
    first, second = png(models, Order(RED, 7)), png(models, Order(RED, 7))
    assert first == second
    (other,) = png(models, Order(RED, 8))
    assert not np.array_equal(pixels(other), pixels(first[0]))
    (words,) = png(models, Order(BLUE, 7))
    assert not np.array_equal(pixels(words), pixels(first[0]))


def pixels(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_a_picture_does_not_change_with_what_is_made_beside_it(models: Models) -> None:
    (alone,) = png(models, Order(RED, 7))
    among = png(models, Order(BLUE, 1), Order(RED, 7), Order(BLUE, 2))[1]
    # Sums are taken in another order in another batch, so the last bit may differ.
    assert np.abs(pixels(alone) - pixels(among)).max() <= 2


def test_a_picture_names_what_made_it(models: Models, trained_lake: Lake) -> None:
    (one,) = dream(models, [Order(RED, 7)])
    said = read_origin(one.png(), "it")
    verified = manifests.latest(trained_lake, "verify")
    assert verified is not None
    assert (said["prompt"], said["seed"]) == (RED, 7)
    for kind in ("prior", "decoder"):
        made = manifests.latest(trained_lake, kind)
        assert made is not None
        assert said[kind]["weights"] == made.details["best"]["digest"]
        assert said[kind]["dataset"] == verified.digest
    with Image.open(io.BytesIO(one.png())) as opened:
        opened.load()
        assert json.loads(opened.text[CHUNK]) == said  # type: ignore[attr-defined]


def test_prompts_and_seeds_make_orders_and_names_of_their_own(models: Models) -> None:
    asked = orders([RED, BLUE, RED], num_pictures=2, seed=5)
    assert asked == [Order(RED, 5), Order(RED, 6), Order(BLUE, 5), Order(BLUE, 6)]
    made = list(dream(models, [*asked, Order("A KID, in a red coat!", 5), Order("¿", 5), Order("x" * 300, 5)]))
    names = [one.file_name for one in made]
    assert len(set(names)) == len(names)
    assert all(len(name) < 150 and "/" not in name for name in names)
    fewer = next(iter(dream(models, [Order(RED, 5)], SamplingOptions(steps=4))))
    assert fewer.file_name != names[0]


def test_what_cannot_be_done_is_said(models: Models, trained_lake: Lake, quick_recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="can only do 1"):
        list(dream(models, [Order(RED, 0)], SamplingOptions(cond_scale=3)))
    with pytest.raises(UsageError, match="expected 1 to 1000"):
        list(dream(models, [Order(RED, 0)], SamplingOptions(steps=5000)))
    with pytest.raises(UsageError, match="an empty prompt"):
        list(dream(models, [Order("  ", 0)]))
    with pytest.raises(UsageError, match="no checkpoint at"):
        load_models(quick_recipe, trained_lake, ["runs/none"])
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG")
    with pytest.raises(CorruptFile, match="does not say how it was made"):
        read_origin(plain.getvalue(), "plain.png")


def test_the_command_writes_pictures_that_the_judge_reads(trained_lake: Lake, tmp_path: Path) -> None:
    place = str(Path(trained_lake.root).parent)
    prompt = "a kid in a red coat and a teal cap at the lake"
    command = [sys.executable, "-m", "sp_data.cli", "dream", prompt, "a samurai", "-n", "2", "--seed", "3"]
    done = subprocess.run(
        [*command, "--lake", place, "--out", str(tmp_path / "out"), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(one["prompt"], one["seed"]) for one in said["pictures"]] == [
        (prompt, 3),
        (prompt, 4),
        ("a samurai", 3),
        ("a samurai", 4),
    ]
    for one in said["pictures"]:
        assert read_origin(Path(one["path"]).read_bytes(), one["path"])["seed"] == one["seed"]
    table = judge_folder(tmp_path / "out")
    assert (table["all"]["n"], table["unseen"]["n"]) == (2, 2)


def test_without_a_checkpoint_there_is_no_dream(demo_lake: Lake, tmp_path: Path) -> None:
    place = str(Path(demo_lake.root).parent)
    command = [sys.executable, "-m", "sp_data.cli", "dream", RED, "--lake", place, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no checkpoint of a prior; run `sp-data train prior demo" in done.stderr


def test_the_nearest_picture_of_a_training_picture_is_itself(trained_lake: Lake) -> None:
    verified = manifests.latest(trained_lake, "verify")
    assert verified is not None
    shard = next(one for one in verified.details["shards"] if one["split"] == "train")
    rows = np.load(trained_lake.full(shard["img_emb"]["path"])).astype(np.float32)
    found = nearest(rows[:5], verified, trained_lake)
    assert [one.cosine for one in found] == pytest.approx([1.0] * 5, abs=1e-3)
    assert [int(one.key[-2:]) for one in found] == [0, 1, 2, 3, 4]
    assert all(one.title.startswith("File:") and one.page for one in found)


def test_the_page_shows_prompt_picture_and_neighbour(trained_copy: Lake, quick_recipe: Recipe) -> None:
    by_stage = load_manifests(trained_copy, STAGES)
    page = Path(trained_copy.full(write_report(quick_recipe, trained_copy, by_stage))).read_text("utf-8")
    for verdict in by_stage["judge"].details["verdicts"]:
        assert verdict["prompt"] in page
    assert page.count('class="drawn"') == 4
    assert page.count("nearest: ") == 4
    assert page.count("<svg") == 2
    for kind in ("prior", "decoder"):
        assert by_stage[kind].details["run"] in page
    assert "From a picture back to a page" in page


def test_without_a_judge_the_page_shows_captions_that_training_did_not_see(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    by_stage = {stage: made for stage, made in load_manifests(trained_copy, STAGES).items() if stage != "judge"}
    page = Path(trained_copy.full(write_report(quick_recipe, trained_copy, by_stage))).read_text("utf-8")
    assert page.count('class="drawn"') > 1
    assert "What the judge says" not in page
