"""Models to draw with, loaded once a worker.

models            random networks that follow their condition and take milliseconds, beside the demo's own CLIP: a
                  prior, a unet of 8 px and an upsampler to 16 px, which sees no condition
generator         draws with them, in float32
trained_models    of the trained lake's best checkpoints, which learnt too little to tell a prompt from another
"""

from __future__ import annotations

import pytest
import torch
from tiny_networks import TIMESTEPS, random_decoder, random_prior, unet_config

from sp_data.dataset.embed.clip import load_clip
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.models import Models, load_models
from sp_data.generation.networks import WeightsSource
from sp_data.lake import Lake
from sp_data.recipe import Recipe, demo


@pytest.fixture(scope="session")
def models() -> Models:
    embed = demo().embed
    unets = [unet_config(number, embed.dim, predict_x_start=True) for number in (1, 2)]
    sources = [WeightsSource(name, {"weights": name}, "", {}) for name in ("prior", "unet 1", "unet 2")]
    return Models(
        clip=load_clip(embed.clip_model, embed.dim),
        clip_name="tiny",
        words=None,
        prior=random_prior(
            embed.dim, 1, TIMESTEPS, strength=0.2, seed=2, sample_timesteps=16, condition_on_text_encodings=False
        ),
        decoder=random_decoder(*unets, hearing=30),
        prior_weights=sources[0],
        unet_weights=(sources[1], sources[2]),
        device=torch.device("cpu"),
        dim=embed.dim,
        steps=4,
    )


@pytest.fixture(scope="session")
def generator(models: Models) -> ImageGenerator:
    return ImageGenerator(models, "fp32")


@pytest.fixture(scope="session")
def trained_models(trained_lake: Lake, quick_recipe: Recipe) -> Models:
    return load_models(quick_recipe, trained_lake)
