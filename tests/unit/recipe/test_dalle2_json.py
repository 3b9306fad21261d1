"""dalle2-pytorch's configuration files as a part of a recipe: each field is taken, or named as not used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from sp_data.errors import RecipeError
from sp_data.recipe import Recipe, load_recipe, southpark

DECODER: dict[str, Any] = {
    "decoder": {
        "unets": [
            {
                "dim": 320,
                "cond_dim": 512,
                "image_embed_dim": 768,
                "text_embed_dim": 768,
                "cond_on_text_encodings": True,
                "channels": 3,
                "dim_mults": [1, 2, 3, 4],
                "num_resnet_blocks": 4,
                "attn_heads": 8,
                "attn_dim_head": 64,
                "sparse_attn": True,
                "memory_efficient": True,
                "self_attn": [False, True, True, True],
            }
        ],
        "image_sizes": [64],
        "channels": 3,
        "timesteps": 1000,
        "loss_type": "l2",
        "beta_schedule": ["cosine"],
        "learned_variance": True,
    },
    "data": {"webdataset_base_url": "pipe:s3cmd get", "batch_size": 38, "num_workers": 6, "splits": {"train": 1}},
    "train": {"epochs": 1000, "lr": 1.2e-4, "wd": 0.0, "max_grad_norm": 0.5, "save_every_n_samples": 380000},
    "evaluate": {"n_evaluation_samples": 2, "FID": {"feature": 64}},
    "tracker": {"data_path": "somewhere"},
    "seed": 3,
}
PRIOR: dict[str, Any] = {
    "prior": {
        "clip": {"make": "openai", "model": "ViT-L/14"},
        "net": {
            "dim": 768,
            "depth": 12,
            "num_timesteps": 1000,
            "max_text_len": 77,
            "num_time_embeds": 1,
            "dim_head": 64,
            "heads": 12,
            "ff_mult": 4,
            "attn_dropout": 0.05,
            "ff_dropout": 0.05,
            "normformer": True,
        },
        "image_embed_dim": 768,
        "image_size": 224,
        "timesteps": 1000,
        "cond_drop_prob": 0.1,
        "loss_type": "l2",
        "condition_on_text_encodings": True,
    },
    "data": {"batch_size": 225, "num_data_points": 2371577760},
    "train": {"epochs": 5, "lr": 1.1e-4, "wd": 6.02e-2, "max_grad_norm": 0.5, "ema_beta": 0.9999},
}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    (tmp_path / "decoder.json").write_text(json.dumps(DECODER))
    (tmp_path / "prior.json").write_text(json.dumps(PRIOR))

    def load(parts: str, *sets: str) -> Recipe:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(f"name: mine\nsource: {{wiki: 'https://southpark.fandom.com'}}\n{parts}\n")
        return load_recipe(str(recipe), sets)

    return load


def test_the_files_of_laions_models_describe_southparks(load: Any) -> None:
    recipe = load("decoder: decoder.json\nprior: prior.json")
    ours = southpark()
    assert recipe.decoder.unets[0].model_dump(exclude={"start", "steps"}, exclude_none=True) == ours.decoder.unets[
        0
    ].model_dump(exclude={"start", "steps"}, exclude_none=True)
    network = ("depth", "heads", "dim_head", "dropout", "normformer", "text_encodings", "max_text_len", "timesteps")
    assert [getattr(recipe.prior, name) for name in network] == [getattr(ours.prior, name) for name in network]


def test_the_training_is_taken_too(load: Any) -> None:
    decoder = load("decoder: decoder.json").decoder
    assert (decoder.batch_size, decoder.learning_rate, decoder.weight_decay) == (38, 1.2e-4, 0.0)
    assert (decoder.lr_warmup_steps, decoder.ema_decay, decoder.save_every) == (0, 0.999, 10_000)
    assert (decoder.seed, decoder.evaluation_samples) == (3, 2)
    prior = load("prior: prior.json").prior
    assert (prior.batch_size, prior.learning_rate, prior.weight_decay, prior.ema_decay) == (225, 1.1e-4, 0.0602, 0.9999)


def test_what_is_not_used_is_named(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load("decoder: decoder.json")
    (message,) = caplog.messages
    assert message == (
        "not used: decoder.json: tracker, decoder.json: train.epochs, decoder.json: data.webdataset_base_url, "
        "decoder.json: data.num_workers, decoder.json: data.splits, decoder.json: evaluate.FID"
    )


def test_an_unusual_field_of_the_model_is_named(tmp_path: Path, load: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = json.loads(json.dumps(DECODER))["decoder"]
    model["unets"][0]["num_image_tokens"] = 8
    model["loss_type"] = "l1"
    (tmp_path / "odd.json").write_text(json.dumps(model))
    with caplog.at_level(logging.WARNING):
        load("decoder: odd.json")
    assert caplog.messages == ["not used: odd.json: loss_type, odd.json: unets.0.num_image_tokens"]


def test_fields_beside_the_file_and_on_the_command_line_win(load: Any, tmp_path: Path) -> None:
    recipe = load("decoder: {config: decoder.json, batch_size: 4}", "decoder.seed=9")
    assert (recipe.decoder.batch_size, recipe.decoder.seed, recipe.decoder.unets[0].dim) == (4, 9, 320)
    by_option = load("", f"prior={tmp_path}/prior.json")
    assert by_option.prior.batch_size == 225


def test_a_cascades_lists_go_to_its_unets(tmp_path: Path, load: Any) -> None:
    config = json.loads(json.dumps(DECODER))
    config["decoder"] |= {
        "unets": [DECODER["decoder"]["unets"][0], {"dim": 128, "dim_mults": [1, 2, 4, 8], "memory_efficient": True}],
        "image_sizes": [64, 256],
        "random_crop_sizes": [None, 64],
        "beta_schedule": ["cosine", "linear"],
        "learned_variance": [True, False],
        "use_noise_for_lowres_cond": True,
    }
    config["train"]["lr"] = [1e-4, 2e-4]
    (tmp_path / "cascade.json").write_text(json.dumps(config))
    decoder = load("decoder: cascade.json").decoder
    assert [unet.image_size_px for unet in decoder.unets] == [64, 256]
    assert [unet.random_crop_px for unet in decoder.unets] == [None, 64]
    assert [decoder.training_of(number).learning_rate for number in (1, 2)] == [1e-4, 2e-4]
    upsampler = decoder.unets[1]
    assert (upsampler.use_noise_for_lowres_cond, upsampler.num_resnet_blocks, upsampler.attn_heads) == (True, 2, 16)
    assert (upsampler.cond_dim, upsampler.self_attn, upsampler.sparse_attn) == (128, (False,) * 4, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "expected an object"),
        ("{", "is not JSON"),
        ('{"decoder": {}}', "expected `unets`"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, load: Any, text: str, sentence: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(RecipeError, match=rf"other\.json.*{sentence}"):
        load("decoder: other.json")
    with pytest.raises(RecipeError, match=r"missing\.json cannot be read"):
        load("prior: missing.json")
