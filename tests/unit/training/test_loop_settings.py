"""The learning rate over a run, and which models a recipe asks for."""

from __future__ import annotations

import pytest
import torch

from sp_data.errors import RecipeError, StageError
from sp_data.recipe import demo, load_recipe, southpark
from sp_data.training.loop import learning_rate
from sp_data.training.models import build, choose_device, decoder_config, num_parameters, prior_config


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    settings = demo().prior.model_copy(update={"steps": 100, "warmup_steps": 10, "learning_rate": 1.0})
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.91)
    assert max(rates) == rates[9]
    assert rates[99] == pytest.approx(0.01)
    constant = settings.model_copy(update={"schedule": "constant"})
    assert learning_rate(99, constant) == 1.0


def test_southpark_has_the_sizes_of_laions_models() -> None:
    """Their sizes in today's layout; in the layout of 1.0.2 the decoder has 982.6 and the upsampler 633 million."""
    recipe = southpark()
    with torch.device("meta"):
        prior = build("prior", prior_config(recipe.prior, recipe.embed.dim))
        decoder = build("decoder", decoder_config(recipe.decoder, recipe.embed.dim))
    assert num_parameters(prior) == pytest.approx(101.8e6, rel=0.001)
    base, upsampler = decoder.unets  # type: ignore[misc]
    assert num_parameters(base) == pytest.approx(956.8e6, rel=0.001)
    assert num_parameters(upsampler) == pytest.approx(616.1e6, rel=0.001)
    assert decoder.image_sizes == (64, 256)


def test_a_model_too_large_for_a_cpu_is_refused_unless_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with torch.device("meta"):
        large = build("prior", prior_config(southpark().prior, 768))
    with pytest.raises(StageError, match=r"102 million parameters .* --set prior\.device=cpu"):
        choose_device("auto", large, "prior")
    assert choose_device("cpu", large, "prior").type == "cpu"
    with pytest.raises(StageError, match="torch finds no CUDA device"):
        choose_device("cuda", large, "prior")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("shard.image_size_px=16", "make pictures of 32 px from shards of 16 px"),
        ("decoder.learned_variance=true", "objective 'v' has no learned variance"),
        ("prior.keep_checkpoints=1", "prior.keep_checkpoints"),
        ("decoder.unets=[{image_size_px: 32}, {image_size_px: 32}]", "unets must grow"),
        ("decoder.unets=[{image_size_px: 32, dim_mults: [1, 2]}]", "self_attn has 4 entries, dim_mults has 2"),
        ("decoder.unets=[]", "decoder.unets"),
    ],
)
def test_a_recipe_that_cannot_be_trained_says_why(setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence.replace("[", r"\[")):
        load_recipe("demo", [setting])
