"""A recipe -> dalle2-pytorch's models, by dalle2-pytorch's own configuration classes.

The configuration is kept in every checkpoint, so that a model can be built again without its recipe, by this project or
by any other program that uses dalle2-pytorch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from sp_data.errors import StageError
from sp_data.recipe import Decoder, Prior
from sp_data.training.dalle2 import dalle2_module

Kind = Literal["prior", "decoder"]
LAYOUT, OLD_LAYOUT = "layout", "1.0"
"""A configuration of weights that dalle2-pytorch 1.0 to 1.3 computed with has `layout: 1.0`."""
TINY = {"dim": 8, "dim_mults": [1], "num_resnet_blocks": 1, "self_attn": [False], "sparse_attn": False}
"""Of a unet that only fills its place until it is taken out."""
MANY_PARAMETERS = 50_000_000
"""A CPU does not train more in a day."""


def prior_config(settings: Prior, dim: int, layout: str | None = None) -> dict[str, Any]:
    """dalle2-pytorch's DiffusionPriorConfig for a CLIP of `dim`, as plain JSON values."""
    return {
        **({LAYOUT: layout} if layout else {}),
        "net": {
            "dim": dim,
            "depth": settings.depth,
            "heads": settings.heads,
            "dim_head": settings.dim_head,
            "num_timesteps": settings.timesteps,
            "max_text_len": settings.max_text_len,
            "attn_dropout": settings.dropout,
            "ff_dropout": settings.dropout,
            "normformer": settings.normformer,
        },
        "image_embed_dim": dim,
        "image_size": 224,
        "timesteps": settings.timesteps,
        "sample_timesteps": settings.sample_timesteps,
        "cond_drop_prob": settings.cond_drop_prob,
        "condition_on_text_encodings": settings.text_encodings,
        # An embedding has unit length, and so must every prediction.
        "sampling_clamp_l2norm": True,
        "sampling_final_clamp_l2norm": True,
    }


def unet_config(settings: Decoder, number: int, dim: int, layout: str | None = None) -> dict[str, Any]:
    """The configuration of the decoder's `number`-th unet (from 1), as plain JSON values.

    `unet` has the arguments of dalle2-pytorch's Unet, the rest those of its Decoder, as far as they concern this unet.
    """
    unet = settings.unets[number - 1]
    return {
        **({LAYOUT: layout} if layout else {}),
        "unet": {
            "dim": unet.dim,
            "dim_mults": list(unet.dim_mults),
            "cond_dim": unet.cond_dim,
            "image_embed_dim": dim,
            "text_embed_dim": dim if unet.text_encodings else None,
            "cond_on_text_encodings": unet.text_encodings,
            "cond_on_image_embeds": number == 1,
            "lowres_cond": number > 1,
            "num_resnet_blocks": unet.num_resnet_blocks,
            "attn_heads": unet.attn_heads,
            "attn_dim_head": unet.attn_dim_head,
            "self_attn": list(unet.self_attn),
            "sparse_attn": unet.sparse_attn,
            "memory_efficient": unet.memory_efficient,
            "init_cross_embed": unet.init_cross_embed,
        },
        "image_size": unet.image_size_px,
        "lowres_size": settings.unets[number - 2].image_size_px if number > 1 else None,
        "beta_schedule": settings.beta_schedule(number),
        "timesteps": settings.timesteps,
        "sample_timesteps": settings.sample_timesteps,
        "learned_variance": settings.learned_variance and number == 1,
        "predict_v": settings.objective == "v",
        "predict_x_start": settings.objective == "x_start",
        "image_cond_drop_prob": settings.image_cond_drop_prob,
        # With any drop, dalle2-pytorch expects guidance, even by text encodings that no unet reads.
        "text_cond_drop_prob": settings.text_cond_drop_prob if unet.text_encodings else 0,
        "use_blur_for_lowres_cond": unet.use_blur_for_lowres_cond and number > 1,
        "use_noise_for_lowres_cond": unet.use_noise_for_lowres_cond and number > 1,
    }


def decoder_config(settings: Decoder, dim: int) -> dict[str, Any]:
    """dalle2-pytorch's DecoderConfig for a CLIP of `dim`, as plain JSON values."""
    return joined([unet_config(settings, number, dim) for number in range(1, len(settings.unets) + 1)])


def joined(unets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The DecoderConfig of a decoder that is made of these unets, given as `unet_config` describes each.

    Raises StageError if they do not fit together.
    """
    for number, (smaller, larger) in enumerate(itertools.pairwise(unets), start=1):
        if larger["lowres_size"] != smaller["image_size"]:
            raise StageError(
                f"unet {number + 1} enlarges pictures of {larger['lowres_size']} px, but unet {number} draws "
                f"{smaller['image_size']} px"
            )
    if len({unet["timesteps"] for unet in unets}) > 1:
        raise StageError(f"the unets were trained with other timesteps: {[unet['timesteps'] for unet in unets]}")
    first = unets[0]
    return {
        "unets": [unet["unet"] for unet in unets],
        "image_sizes": [unet["image_size"] for unet in unets],
        "timesteps": first["timesteps"],
        "sample_timesteps": [unet["sample_timesteps"] for unet in unets],
        "beta_schedule": [unet["beta_schedule"] for unet in unets],
        "learned_variance": [unet["learned_variance"] for unet in unets],
        "predict_v": [unet["predict_v"] for unet in unets],
        "predict_x_start": [unet["predict_x_start"] for unet in unets],
        "image_cond_drop_prob": first["image_cond_drop_prob"],
        "text_cond_drop_prob": max(unet["text_cond_drop_prob"] for unet in unets),
        "use_blur_for_lowres_cond": [unet["use_blur_for_lowres_cond"] for unet in unets[1:]],
        "use_noise_for_lowres_cond": [unet["use_noise_for_lowres_cond"] for unet in unets[1:]],
    }


def build_prior(config: dict[str, Any]) -> Any:
    """A DiffusionPrior with fresh weights, of a configuration as `prior_config` describes it."""
    module = dalle2_module()
    fields = {name: value for name, value in config.items() if name not in ("net", LAYOUT, "clip")}
    # It is for pictures, and the prior sees only embeddings.
    fields.pop("image_size", None)
    prior = module.DiffusionPrior(net=module.DiffusionPriorNetwork(**config["net"]), clip=None, **fields)
    _lay_out(prior, config)
    return prior


def build_decoder(unets: Sequence[dict[str, Any]], only: int | None = None) -> Any:
    """A Decoder with fresh weights of unets, each as `unet_config` describes it.

    `only`: the number (from 1) of the unet that is wanted; the others are Identity, without weights, and may be given
    by `placeholder`.

    Train `decoder.unets[number - 1]`: Decoder may have rebuilt the unets it was given. Raises StageError if they do not
    fit together.
    """
    module = dalle2_module()
    config = joined(unets)
    wanted = range(1, len(unets) + 1) if only is None else (only,)
    arguments = [
        unet["unet"] if number in wanted else {**unet["unet"], **TINY} for number, unet in enumerate(unets, start=1)
    ]
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    del fields["unets"]
    for name in ("use_blur_for_lowres_cond", "use_noise_for_lowres_cond"):
        fields[name] = fields[name] or False
    decoder = module.Decoder([module.Unet(**unet) for unet in arguments], **fields)
    for index, unet in enumerate(unets):
        if index + 1 not in wanted:
            decoder.unets[index] = nn.Identity()
        else:
            _lay_out(decoder.unets[index], unet)
    return decoder


def _lay_out(network: nn.Module, config: dict[str, Any]) -> None:
    """Make a network compute as those did whose weights it takes."""
    if config.get(LAYOUT) == OLD_LAYOUT:
        from sp_data.training.weights.patch import patch

        patch(network)


def cascade(config: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The configurations that `build_decoder(…, only=number)` takes, for the `number`-th unet alone.

    The unets before it only fill their places; each draws half the size of the next, the last what `config` enlarges.
    """
    configs = [config]
    for earlier in range(number - 1, 0, -1):
        size = configs[0]["lowres_size"]
        fields = {"image_size": size, "lowres_size": max(1, size // 2) if earlier > 1 else None}
        fields |= {"learned_variance": False, "unet": {**config["unet"], "lowres_cond": earlier > 1}}
        configs.insert(0, {**config, **fields})
    return configs


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def choose_device(requested: str, model: nn.Module, kind: str) -> torch.device:
    """Where to train. Raises StageError if CUDA is asked for but missing, or the model is too large for a CPU."""
    has_cuda = torch.cuda.is_available()
    if requested == "cuda" and not has_cuda:
        raise StageError(
            f"{kind}.device is 'cuda', but torch finds no CUDA device; see `nvidia-smi`, or set it to auto"
        )
    if requested == "cpu" or (requested == "auto" and not has_cuda):
        if requested == "auto" and num_parameters(model) > MANY_PARAMETERS:
            raise StageError(
                f"the {kind} has {num_parameters(model) / 1e6:,.0f} million parameters and torch finds no CUDA device: "
                f"train it on a GPU, choose a smaller model, stop before it (--until verify), or insist with "
                f"--set {kind}.device=cpu"
            )
        return torch.device("cpu")
    return torch.device("cuda")
