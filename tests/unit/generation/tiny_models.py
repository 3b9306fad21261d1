"""Networks of dalle2-pytorch's that take milliseconds, with random weights: fresh ones would draw grey."""

from __future__ import annotations

from typing import Any

import torch

from sp_data.training.models import build_decoder, build_prior

DIM, NUM_WORDS, TIMESTEPS = 16, 5, 1000


def unet_config(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Of the decoder's `number`-th unet, as training/models.py describes one; the second sees no condition."""
    unet = {
        "dim": 8,
        "dim_mults": [1, 2],
        "cond_dim": 8,
        "image_embed_dim": DIM,
        "text_embed_dim": DIM,
        "max_text_len": NUM_WORDS,
        "cond_on_text_encodings": False,
        "cond_on_image_embeds": number == 1,
        "lowres_cond": number > 1,
        "num_resnet_blocks": 1,
        "attn_heads": 2,
        "attn_dim_head": 8,
        "self_attn": [False, False],
        "sparse_attn": False,
        "init_cross_embed": False,
    }
    config = {
        "unet": unet,
        "image_size": 8 * 2 ** (number - 1),
        "lowres_size": 8 * 2 ** (number - 2) if number > 1 else None,
        "beta_schedule": "cosine",
        "timesteps": TIMESTEPS,
        "sample_timesteps": 4,
        "learned_variance": False,
        "predict_v": False,
        "predict_x_start": False,
        "image_cond_drop_prob": 0.1,
        "text_cond_drop_prob": 0.0,
        "use_blur_for_lowres_cond": False,
        "use_noise_for_lowres_cond": number > 1,
    }
    return {**config, **changes, "unet": {**unet, **changes.get("unet", {})}}


def decoder(*unets: dict[str, Any]) -> Any:
    return _random(build_decoder(unets or (unet_config(),)))


def prior(**changes: Any) -> Any:
    net = {"dim": DIM, "depth": 1, "heads": 2, "dim_head": 8, "num_timesteps": 20, "max_text_len": NUM_WORDS}
    config = {
        "net": net,
        "image_embed_dim": DIM,
        "timesteps": 20,
        "sample_timesteps": 20,
        "cond_drop_prob": 0.1,
        "condition_on_text_encodings": True,
        "sampling_clamp_l2norm": True,
        "sampling_final_clamp_l2norm": True,
    }
    return _random(build_prior({**config, **changes}))


def _random(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval().requires_grad_(False)


def condition(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """`image_embed` and `text_embed` `(rows, DIM)`, `text_encodings` `(rows, NUM_WORDS, DIM)`, zero after the end."""
    generator = torch.Generator().manual_seed(seed)
    encodings = torch.randn(rows, NUM_WORDS, DIM, generator=generator)
    encodings[:, NUM_WORDS - 2 :] = 0
    embeds = torch.nn.functional.normalize(torch.randn(2, rows, DIM, generator=generator), dim=-1)
    return {"image_embed": embeds[0], "text_embed": embeds[1], "text_encodings": encodings}
