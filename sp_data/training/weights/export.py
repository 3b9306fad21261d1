"""One .pth that dalle2-pytorch's and dalle2-laion's loaders take: {version, config, model, steps}.

`model` is a Decoder's or a DiffusionPrior's state dict with its noise schedules, so that both load it strictly.
`config` is a whole training configuration, because dalle2-laion reads `TrainDecoderConfig(**config).decoder`; of its
parts only `decoder` or `prior` means something. Weights that compute as dalle2-pytorch 1.0 did would draw noise by
today's code, so they are written under the names and with the version of 1.0.2, which LAION's own files have.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sp_data.errors import UsageError
from sp_data.training.dalle2 import dalle2_configs
from sp_data.training.weights.fill import SCHEDULES
from sp_data.training.weights.legacy import LAYOUT, State, revert_prior, revert_unet

LEGACY_VERSION = "1.0.2"
SINCE_LEGACY = ("predict_v",)
"""Fields of a configuration that dalle2-pytorch 1.0 does not know."""
SET_BY_DECODER = ("lowres_cond", "cond_on_image_embeds")
"""Fields of a unet that its Decoder sets. 1.0 and 1.1 stop with a NameError if a unet has them right already."""
TINY_UNET = {"dim": 8, "dim_mults": [1], "image_embed_dim": 16, "cond_dim": 8, "num_resnet_blocks": 1}
TINY_NET = {"dim": 16, "depth": 1, "dim_head": 8, "heads": 1, "max_text_len": 1}
TRACKER = {"log": {"log_type": "console"}, "save": {"save_to": "local"}}
SPLITS = {"train": 1.0, "val": 0.0, "test": 0.0}


def export_decoder(
    config: Mapping[str, Any], unets: Sequence[Mapping[str, Tensor]], out: Path, *, legacy: bool = False
) -> None:
    """Write a decoder.

    `config`: dalle2-pytorch's DecoderConfig. `unets`: the weights of each, as Unet.state_dict() names them, in order.
    `legacy`: they compute as dalle2-pytorch 1.0 did, all of them.

    Raises UsageError if they do not fit together, or `out` exists.
    """
    decoder = _without(config, legacy=legacy)
    if len(decoder["unets"]) != len(unets):
        raise UsageError(f"a decoder of {len(decoder['unets'])} unets cannot be exported from {len(unets)} of them")
    tiny = [TINY_UNET] * len(unets)
    schedules = dalle2_configs().DecoderConfig(**decoder | {"unets": tiny, "clip": None}).create().state_dict()
    state: State = {name: value for name, value in schedules.items() if not name.startswith("unets.")}
    for number, weights in enumerate(unets):
        named = revert_unet(weights) if legacy else dict(weights)
        state |= {f"unets.{number}.{name}": value for name, value in named.items()}
    has_text = any(unet.get("cond_on_text_encodings") for unet in decoder["unets"])
    whole = {
        "decoder": decoder,
        "data": {
            "webdataset_base_url": "",
            "img_embeddings_url": "",
            "text_embeddings_url": "" if has_text else None,
            "splits": SPLITS,
        },
        "train": {},
        "evaluate": {},
        "tracker": TRACKER,
    }
    steps = torch.zeros(len(unets), dtype=torch.long)
    _write({"version": _version(legacy), "config": whole, "model": state, "steps": steps}, out)


def export_prior(config: Mapping[str, Any], weights: Mapping[str, Tensor], out: Path, *, legacy: bool = False) -> None:
    """Write a prior.

    `config`: dalle2-pytorch's DiffusionPriorConfig. `weights`: as DiffusionPrior.state_dict() names them.

    Raises UsageError if `out` exists.
    """
    prior = _without(config, legacy=legacy)
    tiny = TINY_NET | {"num_timesteps": prior["net"].get("num_timesteps")}
    small = prior | {"net": tiny, "image_embed_dim": 16, "clip": None}
    schedules = dalle2_configs().DiffusionPriorConfig(**small).create().state_dict()
    named = {name: value for name, value in weights.items() if not name.startswith(SCHEDULES)}
    state = {name: value for name, value in schedules.items() if name.startswith(SCHEDULES)}
    state |= revert_prior(named) if legacy else named
    whole = {
        "prior": prior,
        "data": {"image_url": "", "meta_url": "", "splits": SPLITS, "batch_size": 1},
        "train": {},
        "tracker": TRACKER,
    }
    _write({"version": _version(legacy), "config": whole, "model": state, "ema_model": state}, out)


def _without(config: Mapping[str, Any], *, legacy: bool) -> dict[str, Any]:
    """A configuration for the version of dalle2-pytorch that is to read it. Raises UsageError."""
    left_out = (LAYOUT, *SINCE_LEGACY) if legacy else (LAYOUT,)
    for name in SINCE_LEGACY:
        value = config.get(name)
        if legacy and (any(value) if isinstance(value, list | tuple) else value):
            raise UsageError(f"weights of dalle2-pytorch 1.0 cannot be exported with {name}, which it did not have")
    kept = {name: value for name, value in config.items() if name not in left_out}
    if legacy and "unets" in kept:
        unets = [dict(unet) for unet in kept["unets"]]
        kept["unets"] = [{name: unet[name] for name in unet if name not in SET_BY_DECODER} for unet in unets]
    return kept


def _version(legacy: bool) -> str:
    return LEGACY_VERSION if legacy else version("dalle2-pytorch")


def _write(content: dict[str, Any], out: Path) -> None:
    """Write the file whole or not at all."""
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(unfinished).chmod(0o666 & ~_umask())
        Path(unfinished).replace(out)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
