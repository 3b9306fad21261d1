"""LAION's layout in miniature: files that the real dalle2-pytorch 1.0.1 wrote, a CLIP of their width, and the
configuration of dalle2-laion that joins them.

models/prior.pth      a bare state dict with a CLIP in it,      prior_config.json
models/decoder.pth    {version, config, model}, unet 1
models/upsampler.pth  a bare state dict whose unet 1 is an Identity,      upsampler_config.json
clip/                 a CLIP of random weights in Hugging Face's form
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from legacy_references import FOLDER, unpacked

from sp_data import demo
from sp_data.dataset.embed.clip import UNUSED
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.lake import Lake
from sp_data.recipe import Decoder, Prior, Recipe, load_recipe
from sp_data.runtime.deferred import deferred
from sp_data.training.checkpoints import Checkpoint, save
from sp_data.training.models import Kind, build_decoder, build_prior, cascade, prior_config, unet_config

DIM = 16
HUB = "https://huggingface.co"
LAIONS_PRIOR, UPSAMPLERS = f"{HUB}/laion/DALLE2-PyTorch", f"{HUB}/Veldrovive/upsamplers"


def laions_configuration() -> dict[str, Any]:
    """As dalle2-laion's page loads LAION's models: every field that its examples have."""
    return {
        "decoder": {
            "unet_sources": [
                {
                    "unet_numbers": [1],
                    "default_cond_scale": [1.7],
                    "load_model_from": _url(
                        f"{LAIONS_PRIOR}/resolve/main/decoder/v1.0.2/latest.pth", "new_decoder.pth"
                    ),
                },
                {
                    "unet_numbers": [2],
                    "load_model_from": _url(f"{UPSAMPLERS}/resolve/main/working/latest.pth", "second_decoder.pth"),
                    "load_config_from": _url(
                        f"{UPSAMPLERS}/raw/main/working/decoder_config.json", "second_decoder_config.json", summed=True
                    ),
                },
            ]
        },
        "prior": {
            "load_model_from": _url(f"{LAIONS_PRIOR}/resolve/main/prior/latest.pth", "prior.pth"),
            "load_config_from": _url(f"{LAIONS_PRIOR}/raw/main/prior/prior_config.json", summed=True),
        },
        "clip": {"make": "openai", "model": "ViT-L/14"},
        "devices": "cuda:0",
        "strict_loading": False,
    }


def _url(path: str, name: str | None = None, *, summed: bool = False) -> dict[str, str]:
    return {
        "load_type": "url",
        "path": path,
        **({"checksum_file_path": path} if summed else {}),
        "cache_dir": "./models",
        **({"filename_override": name} if name else {}),
    }


def local_configuration() -> dict[str, Any]:
    """The same with local files, which do not say that they are LAION's."""
    config = laions_configuration()
    decoder, upsampler = config["decoder"]["unet_sources"]
    decoder["load_model_from"] = local("models/decoder.pth")
    upsampler["load_model_from"] = local("models/upsampler.pth", "1.0.2")
    upsampler["load_config_from"] = local("models/upsampler_config.json")
    config["prior"] = {
        "load_model_from": local("models/prior.pth", "1.0.2"),
        "load_config_from": local("models/prior_config.json"),
    }
    config["clip"] = {"make": "hf_clip", "model": "./clip"}
    return config


def local(path: str, version: str | None = None) -> dict[str, str]:
    return {"load_type": "local", "path": path, **({"version": version} if version else {})}


def write(config: dict[str, Any], folder: Path, name: str = "laion.json") -> Path:
    (folder / name).write_text(json.dumps(config))
    return folder / name


def make_files(folder: Path) -> Path:
    """models/ and clip/ in a folder."""
    models = folder / "models"
    models.mkdir(parents=True)
    for name in ("prior", "decoder", "upsampler"):
        unpacked(f"1.0.1/{name}.pth", models).rename(models / f"{name}.pth")
    for name in ("prior", "upsampler"):
        shutil.copy(FOLDER / f"1.0.1/{name}_config.json", models / f"{name}_config.json")
    make_clip(folder / "clip")
    return folder


def make_clip(folder: Path, *, dim: int = DIM, text_width: int = DIM) -> Path:
    """A CLIP of random weights with the tokenizer of the demo's."""
    with deferred(*UNUSED):
        from transformers import CLIPConfig, CLIPModel

    shutil.copytree(demo.clip_folder(), folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    tower = {"num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(  # type: ignore[no-untyped-call]
        text_config={**tower, "hidden_size": text_width, "intermediate_size": 16, "vocab_size": 49408},
        vision_config={**tower, "hidden_size": 16, "intermediate_size": 16, "image_size": 64, "patch_size": 32},
        projection_dim=dim,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def own_recipe(clip: Path) -> Recipe:
    """Of a small prior and two small unets, of the width of a CLIP in Hugging Face's form."""
    recipe = load_recipe("demo", [f"embed.clip_model=hf_clip:{clip}", f"embed.dim={DIM}", "embed.name=tiny"])
    prior = {"depth": 1, "heads": 1, "dim_head": 8, "timesteps": 24, "sample_timesteps": 4, "max_text_len": 1}
    unet = {"dim": 8, "dim_mults": (1, 2), "cond_dim": 8, "num_resnet_blocks": 1, "self_attn": (False, False)}
    decoder = {
        "timesteps": 24,
        "sample_timesteps": 4,
        "unets": [{**unet, "image_size_px": 16}, {**unet, "image_size_px": 32, "use_noise_for_lowres_cond": False}],
    }
    return recipe.model_copy(
        update={
            "prior": Prior.model_validate({**prior, "text_encodings": False}),
            "decoder": Decoder.model_validate(decoder),
        }
    )


def saved_checkpoint(
    lake: Lake, recipe: Recipe, unet: int | None, *, clip: str | None = None, dim: int = DIM, **model: Any
) -> Checkpoint:
    """A checkpoint of random weights; `model`: fields of its configuration that differ."""
    kind: Kind = "prior" if unet is None else "decoder"
    torch.manual_seed(unet or 0)
    network: torch.nn.Module
    if unet is None:
        config = prior_config(recipe.prior, dim) | model
        network = build_prior(config)
    else:
        config = unet_config(recipe.decoder, unet, dim) | model
        network = build_decoder(cascade(config, unet), only=unet).unets[unet - 1]
        # It begins as zeros, which draw grey.
        torch.nn.init.normal_(network.to_out.weight, std=0.1)  # type: ignore[arg-type, union-attr]
    run = kind if unet is None else f"decoder-unet{unet}"
    record = Checkpoint(
        kind=kind,
        unet=unet,
        run=f"{run}-{len(model)}",
        step=1,
        loss=1.0,
        val_loss=None,
        num_samples=1,
        dataset="0" * 64,
        clip=clip_folder(identity_fields(recipe)) if clip is None else clip,
        settings={},
        model=config,
        num_parameters=1,
        files=(),
    )
    runs = [f"decoder-unet{number}-{len(model)}" for number in (1, 2)] if unet else [record.run]
    lake.write_bytes(f"runs/{record.run}/config.json", json.dumps({"kind": kind, "runs": runs}).encode())
    return save(lake, record, network.state_dict(), {"step": 1})
