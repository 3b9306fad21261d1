"""The learning rate over a run, and which models a recipe asks for."""

from __future__ import annotations

import re

import pytest
import torch

from sp_data.errors import RecipeError, StageError
from sp_data.recipe import demo, load_recipe, southpark
from sp_data.training.loop.optimizer import learning_rate
from sp_data.training.models import build_decoder, build_prior, choose_device, num_parameters, prior_config, unet_config


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    settings = demo().prior.model_copy(update={"steps": 100, "lr_warmup_steps": 10, "learning_rate": 1.0})
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.91)
    assert max(rates) == rates[9]
    assert rates[99] == pytest.approx(0.01)
    constant = settings.model_copy(update={"lr_scheduler": "constant"})
    assert learning_rate(99, constant) == 1.0
    cosine = settings.model_copy(update={"lr_scheduler": "cosine"})
    assert learning_rate(50, cosine) == pytest.approx(0.5)
    assert learning_rate(99, cosine) == pytest.approx(0.000247, rel=0.01)


def test_southpark_has_the_sizes_of_laions_models() -> None:
    """Their sizes in today's layout; in the layout of 1.0.2 the decoder has 982.6 and the upsampler 633 million."""
    recipe = southpark()
    with torch.device("meta"):
        prior = build_prior(prior_config(recipe.prior, recipe.embed.dim))
        decoder = build_decoder([unet_config(recipe.decoder, number, recipe.embed.dim) for number in (1, 2)])
    assert num_parameters(prior) == pytest.approx(101.8e6, rel=0.001)
    base, upsampler = decoder.unets
    assert num_parameters(base) == pytest.approx(956.8e6, rel=0.001)
    assert num_parameters(upsampler) == pytest.approx(616.1e6, rel=0.001)
    assert decoder.image_sizes == (64, 256)


def test_a_model_too_large_for_a_cpu_is_refused_unless_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with torch.device("meta"):
        large = build_prior(prior_config(southpark().prior, 768))
    with pytest.raises(StageError, match=r"102 million parameters .* --set prior\.device=cpu"):
        choose_device("auto", large, "prior")
    assert choose_device("cpu", large, "prior").type == "cpu"
    with pytest.raises(StageError, match="torch finds no CUDA device"):
        choose_device("cuda", large, "prior")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("shard.image_size_px=16", "make pictures of 64 px from shards of 16 px"),
        ("decoder.learned_variance=true", "objective 'v' has no learned variance"),
        ("prior.checkpoints_total_limit=1", "prior.checkpoints_total_limit"),
        ("decoder.unets=[{image_size_px: 32}, {image_size_px: 32}]", "unets must grow"),
        ("decoder.unets=[{image_size_px: 32, dim_mults: [1, 2]}]", "self_attn has 4 entries, dim_mults has 2"),
        ("decoder.unets.0.dim=12", "unets.0.dim 12: expected a multiple of 8"),
        ("decoder.unets.0.dim=20", "unets.0.dim 20: expected a multiple of 8"),
        ("decoder.unets.0.image_size_px=33", "unets.0.image_size_px 33 cannot be halved 3 times"),
        (
            "decoder.unets.0.image_size_px=12",
            "unets.0.image_size_px 12 cannot be halved 3 times: expected a multiple of 8",
        ),
        ("decoder.unets.0.dim_mults=[]", "unets.0.dim_mults []: expected one or more numbers from 1 on"),
        ("decoder.unets.0.dim_mults=[0, 1, 1]", "unets.0.dim_mults [0, 1, 1]: expected one or more"),
        ("decoder.unets.0.random_crop_px=16", "the first unet draws whole pictures"),
        ("decoder.unets.0.cond_dim=128", "cond_dim is equal to embed.dim (128)"),
        ("decoder={objective: x_start, learned_variance: true}", "objective 'x_start' has no learned variance"),
        (
            "decoder={timesteps: 10, sample_timesteps: 5, unets: [{image_size_px: 16}, {image_size_px: 32}]}",
            "needs 21 or more",
        ),
        (
            "decoder={unets: [{image_size_px: 16}, {image_size_px: 32, random_crop_px: 48}]}",
            "48 is larger than the picture",
        ),
        (
            "decoder={unets: [{image_size_px: 16}, {image_size_px: 32, random_crop_px: 24}]}",
            "24 cannot be halved 4 times",
        ),
        (
            "decoder={unets: [{image_size_px: 16}, {image_size_px: 32, use_blur_for_lowres_cond: false}]}",
            "needs use_blur",
        ),
        ("decoder.sample_timesteps=2000", "sample_timesteps 2000 is more than timesteps 1000"),
        ("prior.timesteps=6", "sample_timesteps 16 is more than timesteps 6"),
        ("prior.sample_timesteps=1", "prior.sample_timesteps"),
        ("prior.text_encodings=true", "max_text_len 1 would cut what CLIP reads: set it to 77"),
        ("prior={text_encodings: true, max_text_len: 20}", "max_text_len 20 would cut"),
        ("prior.dim_head=31", "dim_head 31 is odd"),
        ("prior.gradient_checkpointing=true", "gradient_checkpointing: dalle2-pytorch has it for unets only"),
        (
            "prior.start=laion-decoder",
            "start laion-decoder: those are the weights of another network",
        ),
        (
            "decoder.unets.1.start=laion-decoder",
            "unets.1.start laion-decoder: those are the weights of another network",
        ),
        (
            "decoder.unets.1={image_size_px: 64, dim_mults: [1], self_attn: [no], batch_size: 8, micro_batch_size: 9}",
            "unets.1: micro_batch_size 9: expected 1 to batch_size 8",
        ),
        ("prior.micro_batch_size=65", "micro_batch_size 65: expected 1 to batch_size 64"),
        ("decoder.unets.0.micro_batch_size=17", "micro_batch_size 17: expected 1 to batch_size 16"),
        ("prior.processes=65", "processes 65 is more than batch_size 64"),
        ("decoder.unets.0.lr_scheduler=cubic", "decoder.unets.0.lr_scheduler"),
        ("decoder.unets.3.steps=5", "expected a number from 0 to 1 in place of `3`"),
        ("decoder.unets=[]", "decoder.unets"),
    ],
)
def test_a_recipe_that_cannot_be_trained_says_why(setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        load_recipe("demo", [setting])


def test_a_recipe_of_older_names_is_read() -> None:
    recipe = load_recipe("demo", ["prior.schedule=constant", "prior.warmup_steps=7", "prior.keep_checkpoints=3"])
    assert (recipe.prior.lr_scheduler, recipe.prior.lr_warmup_steps) == ("constant", 7)
    assert recipe.prior.checkpoints_total_limit == 3


def test_a_unet_takes_from_the_decoder_what_it_does_not_say() -> None:
    unets = "[{image_size_px: 16, dim: 16}, {image_size_px: 32, dim: 16, steps: 5, learning_rate: 0.01}]"
    decoder = load_recipe("demo", ["decoder.steps=9", f"decoder.unets={unets}"]).decoder
    assert [decoder.training_of(number).steps for number in (1, 2)] == [9, 5]
    assert [decoder.training_of(number).learning_rate for number in (1, 2)] == [0.002, 0.01]


def test_a_field_of_the_decoder_on_the_command_line_is_for_every_unet() -> None:
    assert [load_recipe("demo", ["decoder.steps=9"]).decoder.training_of(number).steps for number in (1, 2)] == [9, 9]
    both = load_recipe("demo", ["decoder.steps=9", "decoder.unets.1.steps=5"]).decoder
    assert [both.training_of(number).steps for number in (1, 2)] == [9, 5]


def test_a_field_of_one_unet_names_that_unet_alone() -> None:
    unets = "[{image_size_px: 32, dim: 16}, {image_size_px: 64, dim: 16}]"

    def fields(*sets: str) -> list[dict[str, object]]:
        decoder = load_recipe("demo", [f"decoder.unets={unets}", *sets]).decoder
        return [decoder.unet_identity_fields(number) for number in (1, 2)]

    before = fields()
    assert [one == other for one, other in zip(before, fields("decoder.unets.0.dim=24"), strict=True)] == [False, True]
    assert [one == other for one, other in zip(before, fields("decoder.unets.1.steps=3"), strict=True)] == [True, False]
    assert [one == other for one, other in zip(before, fields("decoder.precision=fp32"), strict=True)] == [False, False]
    # How the work is done is no part of it.
    assert fields("decoder.micro_batch_size=1", "decoder.unets.1.gradient_checkpointing=true") == before
    # A unet of another size before it: another small picture to enlarge.
    assert [one == other for one, other in zip(before, fields("decoder.unets.0.image_size_px=16"), strict=True)] == [
        False,
        False,
    ]
