"""The prior learns the pairs of the dataset: from rows shifted by one after verify it learns wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sp_data import manifest as manifests
from sp_data.dataset.loader.samples import Samples
from sp_data.generation.noise import NoiseByPicture
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.models import build_prior
from sp_data.training.prior import guess

STEPS, BATCH_SIZE = 150, 24


def rows_of(lake: Lake) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Text and image embeddings of the training split, pair by pair."""
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    with Samples(verified, lake, "train") as samples:
        pairs = [
            (sample["text_embed"].numpy(), sample["image_embed"].numpy())
            for sample in map(samples.__getitem__, range(len(samples)))
        ]
    return np.stack([text for text, _ in pairs]), np.stack([image for _, image in pairs])


def shift_by_one(lake: Lake) -> None:
    """Move every shard's image rows on by one, as a wrong index width or an off-by-one error would."""
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    for shard in verified.details["shards"]:
        path = Path(lake.full(shard["img_emb"]["path"]))
        np.save(path, np.roll(np.load(path), 1, axis=0))


def cosines(
    lake: Lake, recipe: Recipe, text: npt.NDArray[np.float32], image: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Train; give the mean cosine of the embedding guessed from each text to its own picture and to the others."""
    trained = run_stage("prior", recipe, lake).manifest
    best = checkpoints.read(lake, f"{trained.details['networks'][0]['best']['folder']}/checkpoint.json")
    model = build_prior(best.model).eval()
    checkpoints.load_weights(lake, best, model)
    with torch.inference_mode(), NoiseByPicture("prior", range(len(text))):
        guesses = guess(model, {"text_embed": torch.from_numpy(text)}, text.shape[1]).numpy()
    similarities = guesses @ image.T
    count = len(similarities)
    right = float(similarities.diagonal().mean())
    return right, float((similarities.sum() - similarities.diagonal().sum()) / (count * (count - 1)))


@pytest.fixture
def recipe(quick_recipe: Recipe) -> Recipe:
    prior = quick_recipe.prior.model_copy(update={"steps": STEPS, "save_every": STEPS, "batch_size": BATCH_SIZE})
    return quick_recipe.model_copy(update={"prior": prior})


@pytest.mark.usefixtures("in_process")
def test_rows_in_order_lead_to_the_right_picture_and_shifted_rows_to_any(lake_copy: Lake, recipe: Recipe) -> None:
    text, image = rows_of(lake_copy)
    right, wrong = cosines(lake_copy, recipe, text, image)
    assert right - wrong >= 0.5, (right, wrong)
    for path in lake_copy.list("manifests/prior") + lake_copy.list("runs"):
        lake_copy.remove(path)
    shift_by_one(lake_copy)
    right, wrong = cosines(lake_copy, recipe, text, image)
    assert abs(right - wrong) <= 0.1, (right, wrong)
