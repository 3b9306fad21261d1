"""A recipe -> dalle2-pytorch's models, by dalle2-pytorch's own configuration classes.

The configuration is kept in every checkpoint, so that a model can be built again without its recipe, by this project or
by any other program that uses dalle2-pytorch.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from tqdm.auto import tqdm

from sp_data.errors import StageError
from sp_data.recipe import Decoder, Prior

Kind = Literal["prior", "decoder"]
MANY_PARAMETERS = 50_000_000
"""A CPU does not train more in a day."""


def prior_config(settings: Prior, dim: int) -> dict[str, Any]:
    """dalle2-pytorch's DiffusionPriorConfig for a CLIP of `dim`, as plain JSON values."""
    return {
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


def decoder_config(settings: Decoder, dim: int) -> dict[str, Any]:
    """dalle2-pytorch's DecoderConfig for a CLIP of `dim`, as plain JSON values."""
    return {
        "unets": [
            {
                "dim": unet.dim,
                "dim_mults": list(unet.dim_mults),
                "cond_dim": unet.cond_dim,
                "image_embed_dim": dim,
                "text_embed_dim": dim if unet.text_encodings else None,
                "cond_on_text_encodings": unet.text_encodings,
                "cond_on_image_embeds": position == 0,
                "lowres_cond": position > 0,
                "num_resnet_blocks": unet.num_resnet_blocks,
                "attn_heads": unet.attn_heads,
                "attn_dim_head": unet.attn_dim_head,
                "self_attn": list(unet.self_attn),
                "sparse_attn": unet.sparse_attn,
                "memory_efficient": unet.memory_efficient,
                "init_cross_embed": unet.init_cross_embed,
            }
            for position, unet in enumerate(settings.unets)
        ],
        "image_sizes": [unet.image_size_px for unet in settings.unets],
        "timesteps": settings.timesteps,
        "sample_timesteps": [settings.sample_timesteps] * len(settings.unets),
        "learned_variance": [settings.learned_variance] + [False] * (len(settings.unets) - 1),
        "predict_v": settings.objective == "v",
        "predict_x_start": settings.objective == "x_start",
        "image_cond_drop_prob": settings.image_cond_drop_prob,
        # With any drop, dalle2-pytorch expects guidance, even by text encodings that no unet reads.
        "text_cond_drop_prob": settings.text_cond_drop_prob
        if any(unet.text_encodings for unet in settings.unets)
        else 0,
    }


def build(kind: Kind, config: dict[str, Any]) -> nn.Module:
    """A DiffusionPrior or a Decoder with fresh weights.

    Train the returned model: Decoder may have rebuilt the unets it was given.
    """
    # Imported late: it takes seconds.
    from dalle2_pytorch import dalle2_pytorch
    from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig

    # Its samplers draw a progress bar for each batch, over ours; no option turns that off.
    dalle2_pytorch.tqdm = partial(tqdm, disable=True)
    model: nn.Module = (DiffusionPriorConfig if kind == "prior" else DecoderConfig)(**config).create()
    return model


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
