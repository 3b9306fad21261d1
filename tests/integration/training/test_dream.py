"""Pictures from prompts: the same seed gives the same bytes, and each picture records how it was made."""

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


def png(models: Models, *batch: Order) -> list[bytes]:
    return [picture.png() for picture in dream(models, list(batch))]


def test_the_same_seed_is_the_same_bytes_and_another_seed_another_picture(models: Models) -> None:
    first, second = png(models, Order(RED, 7)), png(models, Order(RED, 7))
    assert first == second
    (other_seed,) = png(models, Order(RED, 8))
    assert not np.array_equal(pixels(other_seed), pixels(first[0]))
    (other_prompt,) = png(models, Order(BLUE, 7))
    assert not np.array_equal(pixels(other_prompt), pixels(first[0]))


def pixels(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_a_picture_does_not_change_with_what_is_made_beside_it(models: Models) -> None:
    (alone,) = png(models, Order(RED, 7))
    in_batch = png(models, Order(BLUE, 1), Order(RED, 7), Order(BLUE, 2))[1]
    # A batch of another size adds up in another order, so the last bit may differ.
    assert np.abs(pixels(alone) - pixels(in_batch)).max() <= 2


def test_a_picture_names_what_made_it(models: Models, trained_lake: Lake) -> None:
    (picture,) = dream(models, [Order(RED, 7)])
    origin = read_origin(picture.png(), "it")
    verified = manifests.latest(trained_lake, "verify")
    assert verified is not None
    assert (origin["prompt"], origin["seed"]) == (RED, 7)
    for kind in ("prior", "decoder"):
        manifest = manifests.latest(trained_lake, kind)
        assert manifest is not None
        made_by = origin[kind] if kind == "decoder" else [origin[kind]]
        best = [network["best"]["digest"] for network in manifest.details["networks"]]
        assert [network["weights"] for network in made_by] == best
        assert {network["dataset"] for network in made_by} == {verified.digest}
    with Image.open(io.BytesIO(picture.png())) as opened:
        opened.load()
        assert json.loads(opened.text[CHUNK]) == origin  # type: ignore[attr-defined]


def test_prompts_and_seeds_make_orders_and_names_of_their_own(models: Models) -> None:
    ordered = orders([RED, BLUE, RED], num_pictures=2, seed=5)
    assert ordered == [Order(RED, 5), Order(RED, 6), Order(BLUE, 5), Order(BLUE, 6)]
    pictures = list(dream(models, [*ordered, Order("A KID, in a red coat!", 5), Order("¿", 5), Order("x" * 300, 5)]))
    names = [picture.file_name for picture in pictures]
    assert len(set(names)) == len(names)
    assert all(len(name) < 150 and "/" not in name for name in names)
    fewer = next(iter(dream(models, [Order(RED, 5)], SamplingOptions(steps=4))))
    assert fewer.file_name != names[0]


def test_impossible_requests_are_refused_with_the_reason(
    models: Models, trained_lake: Lake, quick_recipe: Recipe
) -> None:
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
    lake_url = str(Path(trained_lake.root).parent)
    prompt = "a kid in a red coat and a teal cap at the lake"
    command = [sys.executable, "-m", "sp_data.cli", "dream", prompt, "a samurai", "-n", "2", "--seed", "3"]
    process = subprocess.run(
        [*command, "--lake", lake_url, "--out", str(tmp_path / "out"), "--json"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    output = json.loads(process.stdout)
    assert [(picture["prompt"], picture["seed"]) for picture in output["pictures"]] == [
        (prompt, 3),
        (prompt, 4),
        ("a samurai", 3),
        ("a samurai", 4),
    ]
    for picture in output["pictures"]:
        assert read_origin(Path(picture["path"]).read_bytes(), picture["path"])["seed"] == picture["seed"]
    table = judge_folder(tmp_path / "out")
    assert (table["all"]["n"], table["unseen"]["n"]) == (2, 2)


def test_without_a_checkpoint_there_is_no_dream(demo_lake: Lake, tmp_path: Path) -> None:
    lake_url = str(Path(demo_lake.root).parent)
    command = [sys.executable, "-m", "sp_data.cli", "dream", RED, "--lake", lake_url, "--out", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert "has no checkpoint of a prior; run `sp-data train prior demo" in process.stderr


def test_the_nearest_picture_of_a_training_picture_is_itself(trained_lake: Lake) -> None:
    verified = manifests.latest(trained_lake, "verify")
    assert verified is not None
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
