"""What a configuration of dalle2-laion's says wrongly, or joins that does not fit together, is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from laion_layout import (
    DIM,
    UPSAMPLERS,
    laions_configuration,
    local,
    local_configuration,
    make_clip,
    make_files,
    own_recipe,
    saved_checkpoint,
    write,
)
from legacy_references import config as legacy_config

from sp_data.errors import SpDataError, StageError, UsageError
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.laion import load_configuration
from sp_data.generation.models import load_models
from sp_data.generation.networks import built, check_together, of_checkpoint
from sp_data.generation.options import NEGATIVE_COND_SCALE, SamplingOptions
from sp_data.lake import Lake
from sp_data.recipe import Recipe, demo
from sp_data.training.models import build_prior
from sp_data.training.weights.adopt import adopt
from sp_data.training.weights.configuration import prior_configuration, unet_configuration

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_files(tmp_path_factory.mktemp("layout"))


@pytest.fixture(scope="module")
def recipe(layout: Path) -> Recipe:
    return own_recipe(layout / "clip")


@pytest.fixture
def lake(tmp_path: Path, recipe: Recipe) -> Lake:
    return Lake(str(tmp_path / "lake"), recipe.name)


def first(config: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = config["decoder"]["unet_sources"][0]
    return source


def second(config: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = config["decoder"]["unet_sources"][1]
    return source


def changed(place: Callable[[dict[str, Any]], dict[str, Any]], **fields: Any) -> Change:
    return lambda config: place(config).update(fields)


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown field": (changed(first, unet_number=1), r"unet_sources\.0\.unet_number is no field of a configuration of"),
    "unknown field of a file": (
        lambda config: first(config)["load_model_from"].update(sha256="0"),
        r"unet_sources\.0\.load_model_from\.sha256 is no field",
    ),
    "words for a number": (changed(first, unet_numbers=["1"]), r"unet_numbers\.0: Input should be a valid integer"),
    "neither local nor url": (
        lambda config: first(config)["load_model_from"].update(load_type="s3"),
        r"load_type: Input should be 'local' or 'url'",
    ),
    "no path": (lambda config: config["prior"].pop("load_model_from"), r"prior\.load_model_from: Field required"),
    "two sources of one unet": (changed(second, unet_numbers=[1]), r"unet 1 is in two unet_sources"),
    "a gap": (changed(second, unet_numbers=[3]), r"upsampler\.pth holds unet 2, and no unet 3"),
    "no first unet": (lambda config: config["decoder"]["unet_sources"].pop(0), r"unet_sources: unet 1 is missing"),
    "no decoder": (lambda config: config.pop("decoder"), r"unet_sources: unet 1 is missing"),
    "no prior": (lambda config: config.pop("prior"), r"prior: is missing, and words need one"),
    "scales of one unet of two": (
        changed(first, default_cond_scale=[1.7, 2]),
        r"default_cond_scale \[1\.7, 2\.?0?\]: expected one for each of unet_numbers \[1\]",
    ),
    "more steps than timesteps": (changed(first, default_sample_timesteps=[50]), r"timesteps: 50: expected 1 to 24"),
    "more steps of the prior": (
        lambda config: config["prior"].update(default_sample_timesteps=7),
        r"prior\.default_sample_timesteps: 7: expected 2 to 6",
    ),
    "no version": (
        lambda config: config["prior"]["load_model_from"].pop("version"),
        r"prior\.pth does not say which .*: give --version, .*\"version\": \"1\.0\.2\" in prior\.load_model_from",
    ),
    "another version than the file's": (
        lambda config: first(config)["load_model_from"].update(version="1.15.6"),
        r"decoder\.pth says that 1\.0\.1 saved it, not 1\.15\.6",
    ),
    "no configuration": (
        lambda config: second(config).pop("load_config_from"),
        r"upsampler\.pth came without a configuration, .*load_config_from",
    ),
    "another model's configuration": (
        changed(second, load_config_from=local("models/prior_config.json")),
        r"the configuration of upsampler\.pth is not a decoder's: expected `unets`",
    ),
    "no such file": (
        lambda config: first(config)["load_model_from"].update(path="models/none.pth"),
        r"nothing is at .*/models/none\.pth, nor at models/none\.pth in dataset 'demo'",
    ),
    "a folder of something else": (
        lambda config: first(config)["load_model_from"].update(path="models"),
        r"/models is neither a checkpoint's folder nor weights/NAME of a lake",
    ),
    "the prior's file for a unet": (
        lambda config: first(config)["load_model_from"].update(path="models/prior.pth"),
        r"models/prior\.pth holds prior, and no unet 1",
    ),
    "another host": (
        lambda config: first(config).update(load_model_from={"load_type": "url", "path": "https://example.com/d.pth"}),
        r"https://example\.com/d\.pth is not on the main branch of the Hugging Face hub.*load_type local",
    ),
    "another branch": (
        lambda config: first(config).update(
            load_model_from={"load_type": "url", "path": f"{UPSAMPLERS}/resolve/v2/working/latest.pth"}
        ),
        r"is not on the main branch",
    ),
    "a CLIP that clip-retrieval has not": (
        lambda config: config.update(clip={"make": "x-clip", "base_model_kwargs": {}}),
        r"clip\.make: 'x-clip': clip-retrieval, .* has openai, open_clip, hf_clip",
    ),
    "a CLIP without weights": (
        lambda config: config.update(clip={"make": "open_clip", "model": "ViT-B-32"}),
        r"clip\.model: 'ViT-B-32' does not say which weights: expected for example ViT-B-32/laion2b",
    ),
    "a CLIP that is not there": (
        lambda config: config.update(clip={"make": "hf_clip", "model": "/none"}),
        r"its networks know embeddings of 16 numbers, which its clip does not give: CLIP 'hf_clip:/none' cannot be",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_name(case: str, layout: Path, recipe: Recipe, lake: Lake) -> None:
    change, sentence = REFUSED[case]
    config = local_configuration()
    change(config)
    with pytest.raises(SpDataError, match=sentence) as refusal:
        load_configuration(write(config, layout, "case.json"), recipe, lake)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_configuration_is_said(layout: Path, recipe: Recipe, lake: Lake, tmp_path: Path) -> None:
    for content, sentence in ((b"{", "is no JSON"), (b"[]", "the file: Input should be a valid dictionary")):
        (tmp_path / "c.json").write_bytes(content)
        with pytest.raises(UsageError, match=sentence):
            load_configuration(tmp_path / "c.json", recipe, lake)
    with pytest.raises(UsageError, match=r"none.json cannot be read \(No such file"):
        load_configuration(tmp_path / "none.json", recipe, lake)
    with pytest.raises(UsageError, match="--checkpoint best: beside --models, name a checkpoint's path"):
        load_configuration(write(local_configuration(), layout, "best.json"), recipe, lake, ["best"])


def described(tmp_path: Path, part: str, **fields: Any) -> dict[str, Any]:
    """A configuration of the upsampler or the prior with other fields, as load_config_from."""
    config = legacy_config(f"1.0.1/{part}_config.json")
    config["prior" if part == "prior" else "decoder"].update(fields)
    (tmp_path / f"{part}.json").write_text(json.dumps(config))
    return local(str(tmp_path / f"{part}.json"))


def refused(config: dict[str, Any], layout: Path, recipe: Recipe, lake: Lake, sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        load_configuration(write(config, layout, "unfit.json"), recipe, lake)


def test_unets_that_do_not_fit_each_other_are_refused_by_name(
    layout: Path, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    config = local_configuration()
    for fields, sentence in (
        (
            {"image_sizes": [8, 32]},
            r"unet 2 \(upsampler\.pth\) enlarges .* of 8 px, but unet 1 \(decoder\.pth\) draws 16",
        ),
        (
            {"timesteps": 30},
            r"unet 1 \(decoder\.pth\) was trained with 24 timesteps, but unet 2 \(upsampler\.pth\) with 30",
        ),
        ({"use_dynamic_thres": False}, r"unet 1 \(decoder\.pth\) has use_dynamic_thres True, but unet 2 \(upsampler"),
    ):
        second(config)["load_config_from"] = described(tmp_path, "upsampler", **fields)
        refused(config, layout, recipe, lake, sentence)


def test_a_prior_and_a_decoder_of_other_embeddings_are_refused_by_name(
    layout: Path, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    wide = recipe.prior.model_copy(update={"depth": 1})
    saved = saved_checkpoint(lake, recipe.model_copy(update={"prior": wide}), None, dim=24)
    config = local_configuration()
    config["prior"] = {"load_model_from": local(saved.folder)}
    refused(
        config,
        layout,
        recipe,
        lake,
        r"prior \(prior.* step 1\) knows embeddings of 24 numbers, but unet 1 \(decoder\.pth\)",
    )


def test_a_clip_of_other_embeddings_or_other_words_is_refused_by_name(
    layout: Path, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    config = local_configuration()
    config["clip"] = {"make": "hf_clip", "model": str(make_clip(tmp_path / "wide", dim=24))}
    refused(config, layout, recipe, lake, r"know embeddings of 16 numbers, which its clip does not .* of 24 numbers")
    config["clip"] = {"make": "hf_clip", "model": str(make_clip(tmp_path / "words", text_width=8))}
    refused(
        config, layout, recipe, lake, r"prior \(prior\.pth\) reads words of 16 numbers, but those of CLIP .* have 8"
    )


def test_a_network_that_names_another_clip_is_refused_by_name(
    layout: Path, recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    config = local_configuration()
    clip = {"make": "openai", "model": "ViT-B/32"}
    config["prior"]["load_config_from"] = described(tmp_path, "prior", clip=clip)
    config["clip"] = {"make": "openai", "model": "ViT-L/14"}
    refused(
        config,
        layout,
        recipe,
        lake,
        r"prior \(prior\.pth\) was trained on embeddings of ViT-B/32, but the CLIP is ViT-L",
    )

    config = local_configuration()
    saved = saved_checkpoint(lake, recipe, None, clip="b32-00000000")
    config["prior"] = {"load_model_from": local(saved.folder)}
    refused(
        config,
        layout,
        recipe,
        lake,
        r"prior \(prior.*\) was trained on embeddings of b32-00000000, but the CLIP is tiny-",
    )

    adopt(lake, layout / "models/decoder.pth", "laion-decoder")
    saved_checkpoint(lake, recipe, None)
    known = recipe.model_copy(update={"embed": demo().embed})
    with pytest.raises(StageError, match=r"prior \(prior.*\) was trained on embeddings of tiny-.*; give the recipe"):
        load_models(known, lake, ["laion-decoder"])
    path = layout / "models/prior.pth"
    adopt(lake, path, "laion-prior", version="1.0.2", config=legacy_config("1.0.1/prior_config.json"))
    with pytest.raises(
        StageError, match=r"prior \(laion-prior\) was trained on embeddings of ViT-L/14, but the CLIP is demo"
    ):
        load_models(known, lake, ["laion-prior", "laion-decoder"])


def test_names_that_are_not_there_list_those_that_are(layout: Path, recipe: Recipe, lake: Lake) -> None:
    adopt(
        lake,
        layout / "models/upsampler.pth",
        "up",
        version="1.0.2",
        config=legacy_config("1.0.1/upsampler_config.json"),
    )
    saved_checkpoint(lake, recipe, None)
    with pytest.raises(UsageError, match="has no weights 'laion-upsampler': there are up"):
        load_models(recipe, lake, ["laion-upsampler"])
    with pytest.raises(UsageError, match=r"unet 2 \(up\) enlarges: name the unets before it too"):
        load_models(recipe, lake, ["up"])
    adopt(lake, layout / "models/prior.pth", "bare", version="1.0.2")
    with pytest.raises(UsageError, match=r"weights/bare came without a configuration"):
        load_models(recipe, lake, ["bare"])


def test_guidance_that_the_decoder_never_learnt_is_refused(layout: Path, recipe: Recipe, lake: Lake) -> None:
    config = local_configuration()
    saved = [saved_checkpoint(lake, recipe, None), saved_checkpoint(lake, recipe, 1, image_cond_drop_prob=0)]
    config["prior"] = {"load_model_from": local(saved[0].folder)}
    config["decoder"]["unet_sources"] = [
        {"unet_numbers": [1], "default_cond_scale": [2], "load_model_from": local(saved[1].folder)}
    ]
    with pytest.raises(UsageError, match=r"decoder: default_cond_scale 2: the decoder was trained without dropping"):
        load_configuration(write(config, layout, "unguided.json"), recipe, lake)


def test_the_configurations_guidance_steps_and_clip_are_the_defaults(
    layout: Path, recipe: Recipe, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    config = local_configuration()
    first(config)["default_sample_timesteps"] = [12]
    config["prior"].update(default_sample_timesteps=5, default_cond_scale=2.0)
    del config["clip"]
    with caplog.at_level("INFO", "sp_data"):
        models = load_configuration(write(config, layout, "defaults.json"), recipe, lake)
    assert (models.steps, models.prior.sample_timesteps, models.cond_scale) == (12, 5, (1.7, 1.0))
    messages = " ".join(record.getMessage() for record in caplog.records)
    assert "prior.default_cond_scale (--prior-cond-scale says it)" in messages
    assert f"names no clip: the recipe's, hf_clip:{layout}/clip, is taken" in messages
    generator = ImageGenerator(models, "fp32")
    for options, wanted in (
        (SamplingOptions(), (1.7, 1.0)),
        (SamplingOptions(negative_prompt="a hat"), (1.7, 1.0)),
        # The upsampler has no condition.
        (SamplingOptions(cond_scale=3), (3.0, 1.0)),
    ):
        assert generator.settled(options, "dream").cond_scale == wanted
    del first(config)["default_cond_scale"]
    models = load_configuration(write(config, layout, "plain.json"), recipe, lake)
    negative = ImageGenerator(models, "fp32").settled(SamplingOptions(negative_prompt="a hat"), "dream")
    assert models.cond_scale is None and negative.cond_scale[0] == NEGATIVE_COND_SCALE


def test_laions_real_configuration_names_only_known_fields(tmp_path: Path, recipe: Recipe, lake: Lake) -> None:
    from sp_data.generation.laion_json import read_configuration

    configuration = read_configuration(write(laions_configuration(), tmp_path))
    assert [source.unet_numbers for _, source in configuration.unet_sources] == [[1], [2]]


CASCADE = legacy_config("1.0.1/upsampler_config.json")


def test_a_unets_configuration_has_dalle2_pytorchs_defaults() -> None:
    unet = {"dim": 16, "image_embed_dim": 768, "cond_dim": 512, "channels": 3, "lowres_cond": False, "typo": 1}
    decoder = {"unets": [unet, {"dim": 16}, {"dim": 8}], "image_sizes": [8, 16, 32], "loss_type": "l1"}
    described = [unet_configuration({"decoder": decoder}, number, "d.pth", legacy=False) for number in (1, 2, 3)]
    assert [one.fields["beta_schedule"] for one in described] == ["cosine", "cosine", "linear"]
    assert [one.fields["learned_variance"] for one in described] == [True, False, False]
    assert [one.fields["use_blur_for_lowres_cond"] for one in described] == [False, True, True]
    assert [(one.fields["lowres_size"], one.fields["image_size"]) for one in described] == [
        (None, 8),
        (8, 16),
        (16, 32),
    ]
    assert [one.fields["timesteps"] for one in described] == [1000] * 3
    assert described[0].fields["unet"] == {"dim": 16, "image_embed_dim": 768, "cond_dim": 512}
    assert described[0].unused == ("unets.0.typo", "loss_type")
    assert "layout" not in described[0].fields
    assert unet_configuration(decoder, 2, "d.pth", legacy=True).fields["layout"] == "1.0"


@pytest.mark.parametrize(
    ("fields", "number", "sentence"),
    [
        ({"typo": 1}, 1, r"d\.pth: its configuration has decoder\.typo, which dalle2-pytorch 1\.15\.6 does not know"),
        ({"unconditional": True}, 1, r"its decoder\.unconditional is True, and only False"),
        ({"image_sizes": [16]}, 1, r"has 2 unets and the image_sizes \[16\]: expected one each"),
        ({}, 3, r"has 2 unets, and none for unet 3"),
        ({"unets": [{"dim": 16}], "image_sizes": [8]}, 1, r"lacks decoder\.unets\.0\.image_embed_dim"),
        ({"unets": [{}], "image_sizes": [8]}, 1, r"lacks decoder\.unets\.0\.dim"),
        (
            {"unets": [{"dim": 16, "image_embed_dim": 16}], "image_sizes": [8]},
            1,
            r"its cond_dim is its image_embed_dim, 16",
        ),
        (
            {"unets": [{"dim": 8, "image_embed_dim": 16, "cond_on_text_encodings": True}], "image_sizes": [8]},
            1,
            r"lacks decoder\.unets\.0\.text_embed_dim",
        ),
    ],
)
def test_what_a_unets_configuration_lacks_is_named(fields: dict[str, Any], number: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        unet_configuration({"decoder": CASCADE["decoder"] | fields}, number, "d.pth", legacy=True)


def test_a_priors_configuration_builds_it_and_what_it_lacks_is_named() -> None:
    whole = legacy_config("1.0.1/prior_config.json")
    described = prior_configuration(whole, "p.pth", legacy=True)
    prior = build_prior(described.fields)
    assert prior.condition_on_text_encodings and prior.net.dim == DIM
    net = whole["prior"]["net"]
    for fields, sentence in (
        ({"typo": 1}, r"p\.pth: its configuration has prior\.typo"),
        ({"net": net | {"typo": 1}}, r"has prior\.net\.typo"),
        ({"net": {"dim": 16}}, r"lacks prior\.net\.depth"),
        ({"net": None}, r"is not a prior's: expected `net`"),
        ({"image_embed_dim": 768}, r"its prior\.net\.dim 16 is not image_embed_dim 768"),
    ):
        with pytest.raises(UsageError, match=sentence):
            prior_configuration({"prior": whole["prior"] | fields}, "p.pth", legacy=True)


def test_a_configuration_that_dalle2_pytorch_cannot_build_names_its_network(lake: Lake, recipe: Recipe) -> None:
    saved = [saved_checkpoint(lake, recipe, number) for number in (None, 1)]
    broken = saved[1].model_copy(update={"model": saved[1].model | {"unet": {**saved[1].model["unet"], "dim": 9}}})
    prior, unet = (of_checkpoint(lake, one) for one in (saved[0], broken))
    check_together(prior, [unet])
    with pytest.raises(StageError, match=r"dalle2-pytorch cannot build the unet 1 \(decoder-unet1-0 step 1\)"):
        built(prior, [unet])
