"""Files with the names, shapes and forms of LAION's, of random values, and what it takes to load them.

Run in processes of their own, so that the peak of each step's memory is its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from torch import Tensor, nn

from sp_data.generation import laion
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.options import SamplingOptions
from sp_data.lake import Lake
from sp_data.recipe import southpark
from sp_data.training.models import decoder_config, num_parameters, prior_config
from sp_data.training.weights.adopt import adopt, load_start
from sp_data.training.weights.fill import fill
from sp_data.training.weights.legacy import convert_prior, convert_unet, revert_prior, revert_unet
from sp_data.training.weights.patch import patch
from sp_data.training.weights.read import read

DIM = 768
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
import torch
torch.set_num_threads(2)
from laion_sizes import {function}
started = time.perf_counter()
facts = {function}({arguments})
facts["s"] = round(time.perf_counter() - started, 1)
facts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
print(json.dumps(facts))
"""


def in_a_process(function: str, *arguments: Any) -> dict[str, Any]:
    """What a function of this module says, with its seconds and the peak of its process's memory in MB."""
    script = SCRIPT.format(function=function, arguments=", ".join(map(repr, arguments)))
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.returncode == 0, process.stderr
    facts: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return facts


def network(part: str) -> nn.Module:
    """Of `southpark()`'s size, on the meta device, patched."""
    recipe = southpark()
    with torch.device("meta"):
        if part == "prior":
            model = DiffusionPriorConfig(**plain(prior_config(recipe.prior, DIM))).create()
        else:
            decoder = DecoderConfig(**decoder_config(recipe.decoder, DIM)).create()
            model = decoder.unets[0 if part == "decoder" else 1]
    patch(model)
    return model


def plain(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "layout"}


def make(part: str, file: str) -> dict[str, Any]:
    """The file as dalle2-pytorch 1.0.2 left it: a decoder with version and configuration, the others bare."""
    own = network(part).state_dict()
    names = {name: value for name, value in own.items() if not name.startswith("noise_scheduler")}
    names = revert_prior(names) if part == "prior" else revert_unet(names)
    state = {name: torch.rand(value.shape) for name, value in names.items()}
    for name in state:
        if name.endswith("rotary_emb.freqs"):
            # All layers have the same.
            state[name] = torch.ones(names[name].shape)
    total = checksum(state)
    if part == "prior":
        state |= {"clip.clip.visual.proj": torch.zeros(1024, DIM), "noise_scheduler.betas": torch.zeros(1000)}
        torch.save(state, file)
    else:
        number = 0 if part == "decoder" else 1
        state = {f"unets.{number}.{name}": value for name, value in state.items()}
        config = {"decoder": decoder_config(southpark().decoder, DIM)}
        torch.save({"version": "1.0.2", "config": config, "model": state} if part == "decoder" else state, file)
    return {"names": len(state), "checksum": total}


def load(part: str, file: str) -> dict[str, Any]:
    """Read, converted, loaded strictly, and each weight read once."""
    (only,) = read(Path(file))
    model = network(part)
    fill(model, (convert_prior if part == "prior" else convert_unet)(only.state), file)
    return {"checksum": checksum(weights_of(model, part))}


def take_in(part: str, file: str, lake: str) -> dict[str, Any]:
    (adopted,) = adopt(Lake(lake, "x"), file, part, version="1.0.2")
    return {"num_parameters": adopted.num_parameters}


def start(part: str, lake: str) -> dict[str, Any]:
    adopted, state = load_start(Lake(lake, "x"), part)
    model = network(part)
    fill(model, state, adopted.name)
    return {"checksum": checksum(weights_of(model, part))}


def weights_of(model: nn.Module, part: str) -> dict[str, Tensor]:
    """A filled model's weights under their old names."""
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("noise_scheduler")}
    return revert_prior(state) if part == "prior" else revert_unet(state)


def checksum(state: Mapping[str, Tensor]) -> float:
    """Of each weight, in the order of the names."""
    total = sum(
        value.double().sum() * (1 + number % 7) for number, value in enumerate(map(state.__getitem__, sorted(state)))
    )
    return float(total)


class StubClip:
    """The width of ViT-L/14, without its 0.9 GB."""

    dim = DIM

    def embed_words(self, captions: list[str]) -> tuple[Any, Any]:
        random = np.random.RandomState(0)
        embeds = random.standard_normal((len(captions), DIM)).astype(np.float32)
        words = random.standard_normal((len(captions), 77, DIM)).astype(np.float32)
        return embeds / np.linalg.norm(embeds, axis=1, keepdims=True), words

    def embed_captions(self, captions: list[str]) -> Any:
        return self.embed_words(captions)[0]

    def embed(self, pictures: list[Any], captions: list[str]) -> tuple[Any, Any]:
        return (self.embed_captions(captions),) * 2


def load_all(folder: str) -> dict[str, Any]:
    """All three files by a configuration of dalle2-laion's, then a picture of two steps a network."""
    root, recipe = Path(folder), southpark()
    decoder = decoder_config(recipe.decoder, DIM)
    (root / "prior.json").write_text(json.dumps({"prior": plain(prior_config(recipe.prior, DIM))}))
    (root / "decoder.json").write_text(json.dumps({"decoder": decoder}))
    sources = [
        {"unet_numbers": [1], **_source("decoder", "decoder")},
        {"unet_numbers": [2], **_source("upsampler", "decoder")},
    ]
    clip = {"make": "openai", "model": "ViT-L/14"}
    config = {"decoder": {"unet_sources": sources}, "prior": _source("prior", "prior"), "clip": clip}
    (root / "laion.json").write_text(json.dumps(config))
    started = time.perf_counter()
    with mock.patch.object(laion, "load_clip", return_value=StubClip()):
        models = laion.load_configuration(root / "laion.json", recipe, Lake(folder, "x"), device="cpu")
    facts: dict[str, Any] = {"load_s": round(time.perf_counter() - started, 1), "load_peak_mb": peak_mb()}
    facts["num_parameters"] = sum(map(num_parameters, (models.prior, *models.decoder.unets)))
    started = time.perf_counter()
    options = SamplingOptions(steps=2, prior_steps=2)
    (made,) = ImageGenerator(models, "fp32").dream(["a kid"], options=options)
    return facts | {"draw_s": round(time.perf_counter() - started, 1), "size": made.picture.size}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def _source(part: str, described: str) -> dict[str, Any]:
    return {
        "load_model_from": {"load_type": "local", "path": f"{part}.pth", "version": "1.0.2"},
        "load_config_from": {"load_type": "local", "path": f"{described}.json"},
    }
