"""Priors and decoders of dalle2-pytorch's that take milliseconds, with random weights: fresh ones would draw grey, and
a short training leaves them deaf to their condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sp_data.training.models import build_decoder, build_prior

DIM, NUM_WORDS, TIMESTEPS = 16, 5, 1000


def unet_config(number: int = 1, dim: int = DIM, num_words: int = NUM_WORDS, **changes: Any) -> dict[str, Any]:
    """Of the decoder's `number`-th unet, as training/models.py describes one: the first draws 8 px from an embedding,
    the second enlarges to 16 px and sees no condition. `changes` of `unet` are those of its own arguments."""
    unet = {
        "dim": 8,
        "dim_mults": [1, 2],
        "cond_dim": 8,
        "image_embed_dim": dim,
        "text_embed_dim": dim,
        "max_text_len": num_words,
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


def random_decoder(*unets: dict[str, Any], strength: float = 0.1, seed: int = 0, hearing: float = 1.0) -> Any:
    """`hearing`: how many times as much as by chance its condition changes what it draws."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _stirred(build_decoder(unets or (unet_config(),)), strength)
    for name, weight in model.named_parameters():
        if any(layer in name for layer in ("to_image_hiddens", "image_to_tokens", "text_to_cond")):
            weight.mul_(hearing)
    return model


def random_prior(
    dim: int = DIM,
    num_words: int = NUM_WORDS,
    timesteps: int = 20,
    *,
    strength: float = 0.1,
    seed: int = 0,
    **changes: Any,
) -> Any:
    """Reads words unless `condition_on_text_encodings` is False."""
    net = {"dim": dim, "depth": 1, "heads": 2, "dim_head": 8, "num_timesteps": timesteps, "max_text_len": num_words}
    config = {
        "net": net,
        "image_embed_dim": dim,
        "timesteps": timesteps,
        "sample_timesteps": timesteps,
        "cond_drop_prob": 0.1,
        "condition_on_text_encodings": True,
        "sampling_clamp_l2norm": True,
        "sampling_final_clamp_l2norm": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _stirred(build_prior({**config, **changes}), strength)


def _stirred(model: Any, strength: float) -> Any:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=strength)
    return model.eval().requires_grad_(False)


def condition(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """`image_embed` and `text_embed` `(rows, DIM)`, `text_encodings` `(rows, NUM_WORDS, DIM)`, zero after the end."""
    generator = torch.Generator().manual_seed(seed)
    encodings = torch.randn(rows, NUM_WORDS, DIM, generator=generator)
    encodings[:, NUM_WORDS - 2 :] = 0
    embeds = torch.nn.functional.normalize(torch.randn(2, rows, DIM, generator=generator), dim=-1)
    return {"image_embed": embeds[0], "text_embed": embeds[1], "text_encodings": encodings}


def save_openai_clip(path: Path) -> None:
    """Weights in OpenAI's format of a CLIP of 64 dimensions whose text tower is as wide, as ViT-L/14's is."""
    import clip.model

    torch.manual_seed(0)
    tiny = clip.model.CLIP(
        embed_dim=64,
        image_resolution=32,
        vision_layers=1,
        vision_width=64,
        vision_patch_size=16,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    )
    torch.save(tiny.state_dict(), path)
