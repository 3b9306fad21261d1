"""A training that begins with the weights of another: it goes on from what they know, or says why it cannot."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import Clip, load_clip
from sp_data.dataset.loader.samples import Sample
from sp_data.demo.kids.artist import draw as drawn_by_hand
from sp_data.demo.kids.kid import COLOURS, Kid, caption, kids
from sp_data.errors import StageError, UsageError
from sp_data.judge.colours import CHANCE, read
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe, load_recipe
from sp_data.training import checkpoints, worker
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.decoder import draw, to_pictures
from sp_data.training.job import TrainingJob
from sp_data.training.loop.metrics import read_metrics
from sp_data.training.models import build_decoder
from sp_data.training.weights.adopt import adopt

log = logging.getLogger(__name__)

NO_CHANGE = {"steps": 1, "save_every": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
"""One step that leaves the weights where they are, so that its validation loss is that of the start."""


def best_of(lake: Lake, kind: str) -> list[Checkpoint]:
    manifest = manifests.latest(lake, kind)
    assert manifest is not None
    return [checkpoints.at(lake, network["best"]["folder"]) for network in manifest.details["networks"]]


def adopted(lake: Lake, checkpoint: Checkpoint, name: str) -> str:
    """The checkpoint under a name that a recipe begins with; gives what its descendants call it."""
    (record,) = adopt(lake, lake.full(checkpoint.folder), name)
    return f"weights/{name}/{record.digest[:16]}"


def with_prior(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"prior": recipe.prior.model_copy(update=changes)})


def with_unets(recipe: Recipe, *starts: str | None, **changes: object) -> Recipe:
    """Each unet with its start, and the changes for all of them."""
    unets = tuple(
        unet.model_copy(update={"start": start, "steps": None})
        for unet, start in zip(recipe.decoder.unets, starts, strict=True)
    )
    return recipe.model_copy(update={"decoder": recipe.decoder.model_copy(update={"unets": unets, **changes})})


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("lora_rank", [None, 4])
def test_a_prior_begins_where_the_adopted_one_ended(
    lora_rank: int | None, trained_copy: Lake, quick_recipe: Recipe
) -> None:
    (before,) = best_of(trained_copy, "prior")
    name = adopted(trained_copy, before, "mine")
    run_stage("prior", with_prior(quick_recipe, start="mine", lora_rank=lora_rank, **NO_CHANGE), trained_copy)
    (after,) = best_of(trained_copy, "prior")
    assert after.run != before.run
    assert after.val_loss == pytest.approx(before.val_loss, rel=1e-6)
    assert after.measured["cosine"] == pytest.approx(before.measured["cosine"], rel=1e-5)
    assert after.ancestor == name


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("lora_rank", [None, 4])
def test_each_unet_begins_where_its_own_start_ended(
    lora_rank: int | None, trained_copy: Lake, quick_recipe: Recipe
) -> None:
    before = best_of(trained_copy, "decoder")
    names = [adopted(trained_copy, checkpoint, f"unet-{checkpoint.unet}") for checkpoint in before]
    changed = with_unets(quick_recipe, "unet-1", "unet-2", lora_rank=lora_rank, **NO_CHANGE)
    run_stage("decoder", changed, trained_copy)
    after = best_of(trained_copy, "decoder")
    assert [checkpoint.ancestor for checkpoint in after] == names
    for checkpoint, start in zip(after, before, strict=True):
        assert checkpoint.val_loss == pytest.approx(start.val_loss, rel=1e-6)
        assert checkpoint.val_loss != pytest.approx(validation_losses(trained_copy, start.run)[0], rel=1e-4)


def validation_losses(lake: Lake, run: str) -> list[float]:
    return [row["val_loss"] for row in read_metrics(lake, run) if "val_loss" in row]


@pytest.mark.usefixtures("in_process")
def test_weights_of_another_kind_are_refused_by_their_name(trained_copy: Lake, quick_recipe: Recipe) -> None:
    (prior,), (unet, upsampler) = best_of(trained_copy, "prior"), best_of(trained_copy, "decoder")
    for checkpoint, name in ((prior, "a-prior"), (unet, "a-unet"), (upsampler, "an-upsampler")):
        adopted(trained_copy, checkpoint, name)
    with pytest.raises(StageError, match=r"prior\.start: the weights 'a-unet' are of unet 1; choose others"):
        run_stage("prior", with_prior(quick_recipe, start="a-unet"), trained_copy)
    with pytest.raises(StageError, match=r"decoder\.unets\.0\.start: the weights 'a-prior' are of a prior"):
        run_stage("decoder", with_unets(quick_recipe, "a-prior", None), trained_copy)
    with pytest.raises(StageError, match=r"unets\.0\.start: the weights 'an-upsampler' are of unet 2"):
        run_stage("decoder", with_unets(quick_recipe, "an-upsampler", None), trained_copy)
    with pytest.raises(StageError, match=r"unets\.1\.start: the weights 'a-unet' are of unet 1"):
        run_stage("decoder", with_unets(quick_recipe, None, "a-unet", steps=1), trained_copy)


@pytest.mark.usefixtures("in_process")
def test_weights_of_another_size_are_refused_by_the_name_of_one(trained_copy: Lake, quick_recipe: Recipe) -> None:
    adopted(trained_copy, best_of(trained_copy, "prior")[0], "mine")
    adopted(trained_copy, best_of(trained_copy, "decoder")[0], "my-unet")
    with pytest.raises(UsageError, match=r"the weights 'mine' does not fit the model: .*layers\.4\.\S+ is missing"):
        run_stage("prior", with_prior(quick_recipe, start="mine", depth=5), trained_copy)
    with pytest.raises(UsageError, match=r"layers\.3\.\S+ is no weight of the model \(and \d+ more\)"):
        run_stage("prior", with_prior(quick_recipe, start="mine", depth=3), trained_copy)
    wider = with_unets(quick_recipe, "my-unet", None)
    unets = (wider.decoder.unets[0].model_copy(update={"dim": 40}), wider.decoder.unets[1])
    wider = wider.model_copy(update={"decoder": wider.decoder.model_copy(update={"unets": unets})})
    with pytest.raises(UsageError, match=r"'my-unet' does not fit the model: \S+ is \(.*\), the model's \(.*\) \(and "):
        run_stage("decoder", wider, trained_copy)


@pytest.mark.usefixtures("in_process")
def test_weights_that_nobody_adopted_are_refused_with_the_names_of_those_there_are(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    wanted = with_prior(quick_recipe, start="nobodys")
    with pytest.raises(UsageError, match=r"has no weights 'nobodys': there are none; bring some with sp-data weights"):
        run_stage("prior", wanted, trained_copy)
    adopted(trained_copy, best_of(trained_copy, "prior")[0], "mine")
    with pytest.raises(UsageError, match=r"has no weights 'nobodys': there are mine"):
        run_stage("prior", wanted, trained_copy)


# Fine-tuning, from half of the demo's coats to the other half.

OLD, NEW = tuple(COLOURS)[::2], tuple(COLOURS)[1::2]
SIZE_PX, STEPS, FINE_STEPS = 32, 800, 80
NUM_KIDS, NUM_JUDGED = 1500, 100
DEMO = [
    "decoder.batch_size=16",
    "decoder.learning_rate=2e-3",
    "decoder.lr_warmup_steps=50",
    "decoder.unets=[{image_size_px: 32, dim: 24, dim_mults: [1, 2, 4], cond_dim: 32, num_resnet_blocks: 1, "
    "attn_heads: 4, attn_dim_head: 32, self_attn: [false, false, false], sparse_attn: false, init_cross_embed: false}]",
    "decoder.validation_samples=16",
    # Pictures are drawn unguided here, so no step is spent on leaving conditions out.
    "decoder.image_cond_drop_prob=0",
    "decoder.sample_timesteps=16",
]
WHOLE = {"learning_rate": 2e-4, "lora_rank": None}
LORA = {"learning_rate": 8.5e-4, "lora_rank": 16}


class Crowd(Dataset[Sample]):
    """Kids in coats of these colours, drawn and embedded by the demo's CLIP."""

    def __init__(self, clip: Clip, coats: tuple[str, ...], num_kids: int, seed: int) -> None:
        self.kids = [kid for kid in kids(4 * num_kids, seed) if kid.coat in coats][:num_kids]
        pictures = [drawn_by_hand(kid, SIZE_PX) for kid in self.kids]
        self.pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        self.embeddings = torch.from_numpy(embedded(clip, pictures, self.kids))

    def __len__(self) -> int:
        return len(self.kids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            key=f"{index:09d}",
            caption=caption(self.kids[index]),
            image=self.pixels[index],
            image_embed=self.embeddings[index],
        )


def embedded(clip: Clip, pictures: list[Image.Image], of: list[Kid]) -> np.ndarray:  # type: ignore[type-arg]
    parts = [range(first, min(first + 100, len(of))) for first in range(0, len(of), 100)]
    rows = [clip.embed([pictures[i] for i in part], [caption(of[i]) for i in part])[0] for part in parts]
    return np.concatenate(rows).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Half:
    """What a decoder that knows the old coats begins with."""

    lake: Lake
    recipe: Recipe
    clip: Clip
    checkpoint: Checkpoint
    judged: dict[str, Crowd]
    """The kids that nobody was trained on, in old and in new coats."""

    def shares(self, checkpoint: Checkpoint) -> dict[str, float]:
        """How many coats of each half have the right colour in the pictures of a checkpoint."""
        decoder = build_decoder([checkpoint.model])
        checkpoints.load_weights(self.lake, checkpoint, decoder.unets[0])
        decoder.eval()
        shares = {}
        for name, crowd in self.judged.items():
            torch.manual_seed(5)
            with torch.inference_mode():
                pictures = to_pictures(draw(decoder, crowd.embeddings))
            right = [read(picture).coat == kid.coat for picture, kid in zip(pictures, crowd.kids, strict=True)]
            shares[name] = sum(right) / len(right)
        return shares


def trained(lake: Lake, recipe: Recipe, run: str, known: Crowd, val: Crowd) -> Checkpoint:
    """The last checkpoint of unet 1 that the worker trains on pictures in memory."""
    verified = SimpleNamespace(digest="0" * 64, details={"clip": "demo"})
    job = TrainingJob(
        kind="decoder",
        unet=1,
        recipe=recipe,
        lake=lake.url,
        dataset="",
        run=run,
        resume=None,
        forget_after=None,
        ancestor="",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "verified_dataset", lambda *_: verified)
        patch.setattr(worker, "Samples", lambda *fields: contextlib.nullcontext(known if "train" in fields else val))
        worker.train(job)
    return checkpoints.of_run(lake, run)[-1]


def decoder_recipe(**changes: Any) -> Recipe:
    sets = [f"decoder.{name}={'null' if value is None else value}" for name, value in changes.items()]
    return load_recipe("demo", [*DEMO, *sets])


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Half:
    recipe = decoder_recipe(steps=STEPS, save_every=STEPS)
    lake = Lake(str(tmp_path_factory.mktemp("half")), recipe.name)
    clip = load_clip("demo", 128)
    judged = {"old": Crowd(clip, OLD, NUM_JUDGED, seed=12), "new": Crowd(clip, NEW, NUM_JUDGED, seed=12)}
    began = time.monotonic()
    checkpoint = trained(lake, recipe, "decoder-unet1-old", Crowd(clip, OLD, NUM_KIDS, seed=11), judged["old"])
    adopt(lake, lake.full(checkpoint.folder), "old-coats")
    log.info("%s steps on old coats: %.0f s", STEPS, time.monotonic() - began)
    return Half(lake, recipe, clip, checkpoint, judged)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "settings"), [("whole", WHOLE), ("lora", LORA)])
def test_a_tenth_of_the_steps_teaches_the_other_coats_and_keeps_the_old(
    name: str, settings: dict[str, Any], half: Half
) -> None:
    before = half.shares(half.checkpoint)
    recipe = decoder_recipe(
        **{"steps": FINE_STEPS, "save_every": FINE_STEPS, "start": "old-coats", "lr_warmup_steps": 5, **settings}
    )
    known = Crowd(half.clip, NEW, NUM_KIDS, seed=11)
    began = time.monotonic()
    after = half.shares(trained(half.lake, recipe, f"decoder-unet1-{name}", known, half.judged["new"]))
    log.info("%s: before %s, after %s; %.0f s", name, before, after, time.monotonic() - began)
    assert before["new"] <= 1.5 * CHANCE
    assert before["old"] >= 0.8
    assert after["new"] >= 0.8
    assert after["old"] >= 0.7
