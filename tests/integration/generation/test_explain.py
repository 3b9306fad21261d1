"""From a picture back to the checkpoints, the dataset and the wiki's pages, whatever has become of them since."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from shared_lake import copied

from sp_data import manifest as manifests
from sp_data.cli.pipeline import status
from sp_data.cli.provenance import explain as explain_command
from sp_data.cli.run import _say_what_is_trained_again
from sp_data.dataset.embed.clip import Clip, load_clip
from sp_data.dataset.shards.tars import read_tar
from sp_data.errors import UsageError
from sp_data.generation import explain as explaining
from sp_data.generation.explain import explain, near_threshold
from sp_data.generation.picture import CHUNK
from sp_data.generation.search import DatasetIndex
from sp_data.generation.search_index import INDEXES
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.training.trained import best_folders
from sp_data.upkeep.collect_garbage import collect
from sp_data.upkeep.forget import forget

COMMAND = str(Path(sys.executable).with_name("sp-data"))
FEW_HELD_OUT = 3
"""A hundred kids hold out fewer pictures than a threshold asks for."""


@pytest.fixture(scope="module")
def clip(quick_recipe: Recipe) -> Clip:
    return load_clip(quick_recipe.embed.clip_model, quick_recipe.embed.dim)


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def drawn(lake: Lake) -> bytes:
    """A picture that the judge had drawn."""
    return lake.read_bytes(latest(lake, "judge").details["verdicts"][0]["picture"])


def png(picture: Image.Image, chunk: str | None = None) -> bytes:
    info = PngImagePlugin.PngInfo()
    if chunk is not None:
        info.add_itxt(CHUNK, chunk)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def in_training(lake: Lake) -> tuple[str, Image.Image]:
    """The title and the picture of the first sample of the train split."""
    with DatasetIndex(latest(lake, "verify"), lake) as index:
        numbers, _ = next(index.rows("train"))
        (neighbour,) = index.described(numbers[:1])
        return neighbour.title, Image.open(io.BytesIO(index.thumbnail(neighbour.key)))


def origin_of(data: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        origin: dict[str, Any] = json.loads(opened.text[CHUNK])  # type: ignore[attr-defined]
        return origin


def test_a_drawn_picture_names_its_checkpoints_its_dataset_and_the_nearest_pages(
    trained_lake: Lake, quick_recipe: Recipe, clip: Clip
) -> None:
    verified, data = latest(trained_lake, "verify"), drawn(trained_lake)
    explanation = explain(data, "kid.png", quick_recipe, trained_lake, 3, clip=clip)
    folders = [
        *best_folders(latest(trained_lake, "prior")),
        *best_folders(latest(trained_lake, "decoder")),
    ]
    assert [network.name for network in explanation.networks] == ["prior", "unet 1", "unet 2"]
    networks = [f"runs/{network.run}/checkpoints/step-{network.step:08d}" for network in explanation.networks]
    assert networks == folders
    assert {(network.state, network.datasets) for network in explanation.networks} == {("there", (verified.digest,))}
    assert [(dataset.digest, dataset.state) for dataset in explanation.datasets] == [(verified.digest, "newest")]
    # The nearest one, found by another way.
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    query = clip.embed([picture], [""])[0].astype(np.float32)[0]
    cosines = {}
    for shard in verified.details["shards"]:
        if shard["split"] == "train":
            for index, row in enumerate(np.load(trained_lake.full(shard["img_emb"]["path"])).astype(np.float32)):
                cosines[f"{shard['number']:05d}{index:02d}"] = float(
                    row @ query / max(float(np.linalg.norm(row)), 1e-9)
                )
    best = max(cosines, key=lambda key: cosines[key])
    near = explanation.nearest[0]
    assert near.neighbour.key == best
    assert near.neighbour.cosine == pytest.approx(cosines[best], abs=1e-3)
    assert near.page_address.startswith(f"{quick_recipe.source.wiki}/wiki/")
    assert near.page_address.endswith(f"?oldid={near.neighbour.revision}")
    assert near.neighbour.licence in ("CC-BY-SA", "Fairuse")
    assert near.neighbour.uploader
    assert {one.neighbour.split for one in explanation.nearest} == {"train"}
    lines = list(explanation.lines())
    assert lines[0].startswith('kid.png: drawn from "a kid in a')
    assert any(near.page_address in line for line in lines)


def test_a_copy_of_a_training_picture_is_warned_of_and_its_page_named(
    trained_copy: Lake, quick_recipe: Recipe, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, picture = in_training(trained_copy)
    copy = png(picture, json.dumps(origin_of(drawn(trained_copy))))
    assert "unknown" in list(explain(copy, "copy.png", quick_recipe, trained_copy, clip=clip).lines())[-1]
    monkeypatch.setattr(explaining, "MIN_HELD_OUT", FEW_HELD_OUT)
    explanation = explain(copy, "copy.png", quick_recipe, trained_copy, clip=clip)
    assert explanation.is_near_copy
    assert explanation.warning.startswith(f"nearly a copy of {title}: nearer than 95% of ")
    assert explanation.nearest[0].neighbour.cosine > 0.999
    assert not explain(drawn(trained_copy), "kid.png", quick_recipe, trained_copy, clip=clip).is_near_copy
    # Measured once for a dataset.
    with DatasetIndex(latest(trained_copy, "verify"), trained_copy) as index:
        held_out = np.concatenate([rows for split in ("val", "test") for _, rows in index.rows(split)])
        threshold = near_threshold(index, trained_copy)
        assert threshold is not None
        assert threshold.num_held_out == len(held_out)
        nearest = index.hits(held_out, 1, "train").cosines[:, 0]
        assert threshold.cosine == pytest.approx(np.quantile(nearest, 0.95), abs=1e-6)
        trained_copy.write_bytes(
            f"{INDEXES}/{index.digest[:16]}/near.json", b'{"cosine": 0.5, "quantile": 0.9, "num_held_out": 7}'
        )
        kept = near_threshold(index, trained_copy)
        assert kept is not None
        assert kept.cosine == 0.5


ORIGIN = '{"prompt": "a kid", "decoder": [{"run": "../../etc", "step": 1}]}'


@pytest.mark.parametrize(
    ("mode", "file_format", "chunk", "sentence"),
    [
        ("RGB", "PNG", None, "odd.png does not say how it was made"),
        ("RGBA", "PNG", "no JSON", "is not JSON"),
        ("RGB", "PNG", '{"prompt": 1}', "does not describe a picture"),
        ("RGB", "PNG", ORIGIN, "names no networks as sp-data does"),
        ("RGB", "PNG", '{"prompt": "a kid", "decoder": [{}]}', "names no networks as sp-data does"),
        ("CMYK", "JPEG", None, "odd.png is no PNG, so it was not drawn by sp-data"),
        ("P", "GIF", None, "odd.png is no PNG, so it was not drawn by sp-data"),
    ],
)
def test_a_picture_that_is_not_ours_has_its_nearest_all_the_same(
    demo_lake: Lake,
    demo_recipe: Recipe,
    clip: Clip,
    mode: str,
    file_format: str,
    chunk: str | None,
    sentence: str,
) -> None:
    title, picture = in_training(demo_lake)
    out = io.BytesIO()
    picture.convert(mode).save(out, file_format)
    data = png(picture.convert(mode), chunk) if file_format == "PNG" else out.getvalue()
    explanation = explain(data, "odd.png", demo_recipe, demo_lake, 2, clip=clip)
    assert explanation.origin is None
    assert sentence in explanation.foreign
    assert next(explanation.lines()).endswith("; what lies nearest to it all the same:")
    assert explanation.networks == explanation.datasets == ()
    assert explanation.nearest[0].neighbour.title == title
    assert len(explanation.nearest) == 2


def test_no_picture_and_a_huge_one_are_refused_in_a_sentence(demo_lake: Lake, demo_recipe: Recipe, clip: Clip) -> None:
    whole = png(Image.new("RGB", (64, 64), "red"))
    for data, message in (
        (b"", "cannot be read as a picture"),
        (b"<svg/>", "cannot be read as a picture"),
        (whole[: len(whole) // 2], "cannot be read as a picture"),
        (png(Image.new("1", (8_000, 8_000))), "8000 x 8000, at most 40,000,000 pixels"),
    ):
        with pytest.raises(UsageError, match=message):
            explain(data, "bad.png", demo_recipe, demo_lake, clip=clip)


def test_what_has_vanished_or_is_foreign_is_said(trained_copy: Lake, quick_recipe: Recipe, clip: Clip) -> None:
    origin = origin_of(drawn(trained_copy))
    prior, first, second = origin["prior"], *origin["decoder"]
    shutil.rmtree(trained_copy.full(f"runs/{prior['run']}"))
    first["weights"] = "0" * 64
    origin["decoder"] = [first, {"file": "upsampler.pth", "weights": "ab" * 32}]
    prior["dataset"] = "f" * 64
    picture = png(Image.new("RGB", (64, 64), "red"), json.dumps(origin))
    explanation = explain(picture, "old.png", quick_recipe, trained_copy, clip=clip)
    assert [network.state for network in explanation.networks] == ["vanished", "replaced", "foreign"]
    assert [dataset.state for dataset in explanation.datasets] == ["gone", "newest"]
    text = "\n".join(explanation.lines())
    assert (
        f"prior: {prior['run']} step {prior['step']}, trained on dataset ffffffffffff; the checkpoint is gone" in text
    )
    assert "dataset ffffffffffff: no manifest any more, or of another lake" in text
    assert "unet 2: upsampler.pth (sha256 abababababab); this lake does not know what it learnt from" in text
    assert second["run"] not in text
    # What was adopted from a run keeps in its record what it learnt from.
    adopted = {"name": "mine", "kind": "decoder", "unet": 2, "run": second["run"], "dataset": second["dataset"]}
    trained_copy.write_bytes("weights/mine/adopted.json", json.dumps(adopted).encode())
    origin["decoder"][1]["file"] = "weights/mine"
    picture = png(Image.new("RGB", (64, 64), "red"), json.dumps(origin))
    text = "\n".join(explain(picture, "old.png", quick_recipe, trained_copy, clip=clip).lines())
    assert f"unet 2: weights/mine (sha256 abababababab); trained on dataset {second['dataset'][:12]}" in text


@pytest.fixture(scope="module")
def forgetful(
    trained_lake: Lake, quick_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lake, str, bytes]:
    """A lake whose first training picture was forgotten after it was trained on and indexed; its title and PNG."""
    lake = copied(trained_lake, tmp_path_factory.mktemp("forgetful"))
    title, picture = in_training(lake)
    with DatasetIndex(latest(lake, "verify"), lake, "index") as index:
        index.build()
    assert lake.list(INDEXES)
    forget([title], quick_recipe, lake)
    return lake, title, png(picture, json.dumps(origin_of(drawn(lake))))


def test_after_forget_the_checkpoints_that_saw_it_are_named_and_nobody_finds_it(
    forgetful: tuple[Lake, str, bytes], quick_recipe: Recipe, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    lake, title, copy = forgetful
    assert lake.list(INDEXES) == []
    before = origin_of(copy)["prior"]["dataset"]
    assert latest(lake, "verify").digest != before
    explanation = explain(copy, "copy.png", quick_recipe, lake, 200, clip=clip)
    assert explanation.searched == before, "the dataset that it was drawn from is still there"
    assert [dataset.state for dataset in explanation.datasets] == ["there"]
    assert {network.forgotten for network in explanation.networks} == {(title,)}
    assert title not in {near.neighbour.title for near in explanation.nearest}
    lines = [line for line in explanation.lines() if "forgotten" in line]
    assert len(lines) == 3
    assert all(f"({title})" in line and line.endswith("train again") for line in lines)
    for way in ("index", "product"):
        with DatasetIndex.open(quick_recipe, lake, way) as index:  # type: ignore[arg-type]
            query = clip.embed([Image.open(io.BytesIO(copy)).convert("RGB")], [""])[0].astype(np.float32)
            assert title not in {neighbour.title for neighbour in index.nearest(query, 200)[0]}
    with caplog.at_level(logging.INFO):
        _say_what_is_trained_again(lake, "verify")
        assert caplog.messages == []
        _say_what_is_trained_again(lake, "judge")
    assert len(caplog.messages) == 3
    assert caplog.messages[0].startswith("prior: trained again: prior-")
    assert caplog.messages[0].endswith(f"saw 1 forgotten picture ({title})")


def test_status_names_the_models_that_saw_a_forgotten_picture(
    forgetful: tuple[Lake, str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    lake, title, _ = forgetful
    url = str(Path(lake.root).parent)
    status(url=url)
    network = latest(lake, "prior").details["networks"][0]
    sentence = (
        f"prior: step {network['best']['step']} of {network['run']} saw 1 forgotten picture ({title}); train again"
    )
    assert f"{sentence}: `sp-data train prior demo --lake {url}`\n" in capsys.readouterr().out
    status(url=url, json_=True)
    models = json.loads(capsys.readouterr().out)["saw_forgotten"]
    assert [(model["network"], model["titles"], model["trained_again"]) for model in models] == [
        ("prior", [title], True),
        ("unet 1", [title], True),
        ("unet 2", [title], True),
    ]


def test_gc_keeps_the_index_of_a_dataset_and_removes_that_of_none(lake_copy: Lake, demo_recipe: Recipe) -> None:
    with DatasetIndex.open(demo_recipe, lake_copy, "index") as index:
        index.build()
    kept = lake_copy.list(INDEXES)
    lake_copy.write_bytes(f"{INDEXES}/0123456789abcdef/near.json", b"{}")
    waste = collect(demo_recipe, lake_copy, delete=True)
    assert [path for path in waste.files if path.startswith(INDEXES)] == [f"{INDEXES}/0123456789abcdef/near.json"]
    assert lake_copy.list(INDEXES) == kept


def test_a_thumbnail_is_the_tars_own_bytes(demo_lake: Lake) -> None:
    verified = latest(demo_lake, "verify")
    with (
        DatasetIndex(verified, demo_lake) as index,
        demo_lake.local(verified.details["shards"][1]["tar"]["path"]) as tar,
    ):
        for key, parts in read_tar(tar):
            assert index.thumbnail(key) == parts["jpg"]


def test_the_command_explains_a_picture_and_refuses_none(trained_lake: Lake, tmp_path: Path) -> None:
    url = str(Path(trained_lake.root).parent)
    picture = tmp_path / "kid.png"
    picture.write_bytes(drawn(trained_lake))
    process = subprocess.run(
        [COMMAND, "explain", str(picture), "-k", "2", "--lake", url, "--json"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    explanation = json.loads(process.stdout)
    assert explanation["origin"] == origin_of(picture.read_bytes())
    assert [network["state"] for network in explanation["networks"]] == ["there"] * 3
    assert len(explanation["nearest"]) == 2
    with pytest.raises(UsageError, match=r"there is no picture .*no\.png"):
        explain_command(tmp_path / "no.png", url=url)
