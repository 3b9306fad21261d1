"""A set of models by dalle2-laion's configuration draws what dalle2-pytorch 1.0.1 drew, whole and mixed with ours."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import hub
from huggingface_hub import constants, file_download
from laion_layout import (
    DIM,
    laions_configuration,
    local,
    local_configuration,
    make_files,
    own_recipe,
    saved_checkpoint,
    write,
)
from laion_sizes import in_a_process
from legacy_references import expected, recorded_noise
from PIL import Image

from sp_data.generation import generator
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.laion import load_configuration
from sp_data.generation.models import Models, load_models
from sp_data.generation.options import SamplingOptions
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.training.models import joined
from sp_data.training.weights.adopt import adopt, checked_weights
from sp_data.training.weights.export import export_decoder, export_prior
from sp_data.training.weights.read import read

DDPM = SamplingOptions(sampler="ddpm", prior_steps=6)
"""All timesteps, of the prior too."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_files(tmp_path_factory.mktemp("layout"))


@pytest.fixture(scope="module")
def recipe(layout: Path) -> Recipe:
    return own_recipe(layout / "clip")


@pytest.fixture(scope="module")
def lake(layout: Path, recipe: Recipe) -> Lake:
    """With a prior and a decoder of two unets of our own, trained with the CLIP of the layout."""
    lake = Lake(str(layout / "lake"), recipe.name)
    for unet in (None, 1, 2):
        saved_checkpoint(lake, recipe, unet)
    return lake


@pytest.fixture(scope="module")
def whole(layout: Path, recipe: Recipe, lake: Lake) -> Models:
    return load_configuration(write(local_configuration(), layout), recipe, lake)


@dataclass
class RecordedClip:
    """Tells the words that 1.0.1 was told, whatever the prompts are."""

    told: dict[str, torch.Tensor]
    dim: int = DIM

    def embed_words(self, captions: list[str]) -> tuple[Any, Any]:
        embed, encodings = (self.told[f"dream.{name}"][: len(captions)] for name in ("text_embed", "text_encodings"))
        return embed.numpy(), encodings.numpy()

    def embed_captions(self, captions: list[str]) -> Any:
        return self.embed_words(captions)[0]

    def embed(self, pictures: list[Any], captions: list[str]) -> tuple[Any, Any]:
        return (np.zeros((len(pictures), DIM), np.float16),) * 2


def drawn(models: Models, told: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Two pictures `(2, 3, 32, 32)` in 0..1 by a whole dream, with the words and the noise that 1.0.1 had."""
    clip: Any = RecordedClip(told)
    assert models.words is not None
    models = replace(models, clip=clip, words=type(models.words)(clip))
    floats: list[torch.Tensor] = []

    def to_pictures(pictures: torch.Tensor) -> list[Image.Image]:
        floats.append(pictures)
        return [Image.new("RGB", (1, 1))] * len(pictures)

    monkeypatch.setattr(generator, "to_pictures", to_pictures)
    monkeypatch.setattr(generator, "NoiseByPicture", lambda *_: contextlib.nullcontext())
    with recorded_noise(6):
        made = list(ImageGenerator(models, "fp32").dream(["first", "second"], options=DDPM))
    assert [picture.origin["cond_scale"] for picture in made] == [[1.7, 1.0]] * 2
    assert made[0].origin["steps"] == [24, 24] and made[0].origin["prior_steps"] == 6
    (pictures,) = floats
    return pictures


def pixels(models: Models, **options: Any) -> np.ndarray:  # type: ignore[type-arg]
    (made,) = ImageGenerator(models, "fp32").dream(["a kid"], seed=5, options=SamplingOptions(**options))
    return np.asarray(made.picture)


def test_a_whole_ddpm_loop_with_the_same_noise_ends_where_that_of_1_0_ended(
    whole: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (whole.image_size_px, whole.num_unets, whole.dim, whole.cond_scale) == (32, 2, DIM, (1.7, 1.0))
    assert not whole.guides_prior and whole.guides_decoder
    told = expected("1.0.1")
    pictures = drawn(whole, told, monkeypatch)
    error = float((pictures - told["dream.picture"]).abs().max())
    sys.stdout.write(f"largest difference {error:.1e} of the range\n")
    assert error <= 1e-4


def test_laions_own_configuration_is_fetched_from_the_hub_or_from_where_dalle2_laion_put_it(
    layout: Path,
    recipe: Recipe,
    lake: Lake,
    whole: Models,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = laions_configuration()
    # ViT-L/14 is none of what a test can load.
    config["clip"] = {"make": "hf_clip", "model": str(layout / "clip")}
    with hub() as server, caplog.at_level(logging.INFO, "sp_data"):
        for path, name in (
            ("laion/DALLE2-PyTorch/prior/latest.pth", "prior.pth"),
            ("laion/DALLE2-PyTorch/prior/prior_config.json", "prior_config.json"),
            ("laion/DALLE2-PyTorch/decoder/v1.0.2/latest.pth", "decoder.pth"),
            ("Veldrovive/upsamplers/working/latest.pth", "upsampler.pth"),
            ("Veldrovive/upsamplers/working/decoder_config.json", "upsampler_config.json"),
        ):
            server.files[path] = (layout / "models" / name).read_bytes()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        models = load_configuration(write(config, tmp_path), recipe, lake)
    assert models.prior_weights.origin["file"] == "laion/DALLE2-PyTorch/prior/latest.pth"
    (messages,) = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
    assert "devices (--device" in messages and "strict_loading: false (weights must fit exactly" in messages
    assert "prior.load_model_from.cache_dir (the hub's own cache and sums are used)" in messages
    assert "prior.load_config_from.checksum_file_path (the hub's" in messages
    assert has_weights_of(models, whole)

    # No server any more.
    (tmp_path / "models").mkdir()
    for name, kept in (
        ("prior.pth", "prior.pth"),
        ("prior_config.json", "prior_config.json"),
        ("decoder.pth", "new_decoder.pth"),
        ("upsampler.pth", "second_decoder.pth"),
        ("upsampler_config.json", "second_decoder_config.json"),
    ):
        (tmp_path / "models" / kept).symlink_to(layout / "models" / name)
    again = load_configuration(write(config, tmp_path), recipe, lake)
    assert again.prior_weights.origin == models.prior_weights.origin
    assert has_weights_of(again, whole)


def has_weights_of(models: Models, others: Models) -> bool:
    pairs = zip((models.prior, models.decoder), (others.prior, others.decoder), strict=True)
    states = [(one.state_dict(), other.state_dict()) for one, other in pairs]
    return all(torch.equal(value, other[name]) for one, other in states for name, value in one.items())


def test_our_checkpoints_and_their_exported_files_draw_the_same_by_a_configuration(
    recipe: Recipe, lake: Lake, tmp_path: Path
) -> None:
    prior, *unets = (saved_checkpoint(lake, recipe, unet) for unet in (None, 1, 2))
    folders = [checkpoint.folder for checkpoint in (prior, *unets)]
    wanted = load_models(recipe, lake, folders)
    weights = [checked_weights(lake, checkpoint.files[0], "") for checkpoint in (prior, *unets)]
    export_prior(prior.model, weights[0], tmp_path / "prior.pth")
    export_decoder(joined([unet.model for unet in unets]), weights[1:], tmp_path / "decoder.pth")
    config: dict[str, Any] = {
        "decoder": {"unet_sources": [{"unet_numbers": [1, 2], "load_model_from": local("decoder.pth")}]},
        "prior": {"load_model_from": local("prior.pth")},
    }
    exported = load_configuration(write(config, tmp_path, "exported.json"), recipe, lake)
    # In the lake, and as a path on the disk.
    config["prior"] = {"load_model_from": local(folders[0])}
    config["decoder"]["unet_sources"] = [
        {"unet_numbers": [1], "load_model_from": local(lake.full(folders[1]))},
        {"unet_numbers": [2], "load_model_from": local(folders[2])},
    ]
    of_folders = load_configuration(write(config, tmp_path, "folders.json"), recipe, lake)
    assert of_folders.prior_weights.origin == wanted.prior_weights.origin
    assert [unet.origin for unet in of_folders.unet_weights] == [unet.origin for unet in wanted.unet_weights]
    assert set(exported.prior_weights.origin) == {"file", "weights"}
    reference = pixels(wanted, steps=2)
    assert reference.std() > 1
    for models in (exported, of_folders):
        assert np.array_equal(pixels(models, steps=2), reference)


def test_adopted_weights_are_drawn_with_by_name_and_beside_our_own(
    layout: Path, recipe: Recipe, lake: Lake, whole: Models
) -> None:
    config = local_configuration()
    models = layout / "models"
    adopt(lake, models / "decoder.pth", "laion-decoder")
    for name in ("prior", "upsampler"):
        described = json.loads((models / f"{name}_config.json").read_bytes())
        adopt(lake, models / f"{name}.pth", f"laion-{name}", version="1.0.2", config=described)
    names = [f"laion-{name}" for name in ("prior", "decoder", "upsampler")]
    adopted = load_models(recipe, lake, names)
    assert [unet.origin["file"] for unet in adopted.unet_weights] == [f"weights/{name}" for name in names[1:]]
    reference = pixels(whole, steps=2)
    assert np.array_equal(pixels(adopted, steps=2, cond_scale=(1.7, 1.0)), reference)

    # The same by a configuration, and over one.
    config["prior"] = {"load_model_from": local("weights/laion-prior")}
    config["decoder"]["unet_sources"][0]["load_model_from"] = local(lake.full("weights/laion-decoder"))
    by_name = load_configuration(write(config, layout), recipe, lake, ["laion-upsampler"])
    assert np.array_equal(pixels(by_name, steps=2), reference)

    # Our own prior before LAION's decoder, whose unet is enlarged by our second one.
    (decoder,) = (network.config for network in read(models / "decoder.pth"))
    assert decoder is not None
    adopt(lake, models / "decoder.pth", "plain", config={"decoder": decoder["decoder"] | {"use_dynamic_thres": False}})
    mixed = load_models(recipe, lake, ["plain", "best"])
    assert "run" in mixed.prior_weights.origin and "run" in mixed.unet_weights[1].origin
    assert mixed.unet_weights[0].origin["file"] == "weights/plain"
    assert pixels(mixed, steps=2).shape == (32, 32, 3)


@pytest.mark.proof
def test_laions_sizes_load_without_a_second_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time and peak memory of loading all three by a configuration, and of a picture of two steps."""
    for part in ("prior", "decoder", "upsampler"):
        in_a_process("make", part, str(tmp_path / f"{part}.pth"))
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    loaded = in_a_process("load_all", str(tmp_path))
    with capsys.disabled():
        sys.stdout.write(f"\n{size / 1e9:.2f} GB: {loaded}")
    assert loaded["num_parameters"] == 101_756_560 + 982_610_118 + 632_649_228
    # The prior is copied; of the unets' files nothing is, and what is mapped may leave the memory again.
    assert loaded["load_peak_mb"] < 3_000
