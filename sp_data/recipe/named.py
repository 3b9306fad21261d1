"""The stock recipes: `southpark`, `southpark_scratch` and `demo`."""

from __future__ import annotations

from typing import Any

from sp_data.recipe.recipe import Recipe


def southpark() -> Recipe:
    """South Park's characters, on which LAION's DALL-E 2 is fine-tuned: ViT-L/14, a prior of 102 million parameters, a
    unet of 983 million that draws 64 pixels and one of 633 million that enlarges them to 256.

    On a GPU with 80 GB; each network is trained on its own and takes at most 43 of them (docs/training.md). You set
    `contact` and `acknowledge_terms` yourself.
    """
    return Recipe.model_validate(_SOUTHPARK)


def southpark_scratch() -> Recipe:
    """The same pictures and networks, trained from nothing: longer, and for who wants no others' weights."""
    return Recipe.model_validate(_SOUTHPARK_SCRATCH)


def demo() -> Recipe:
    """Paper-cutout kids from a wiki that the run serves itself: no network, no GPU.

    The models are toys that learn to draw 64 pixels in about five minutes on two cores.
    """
    return Recipe.model_validate(_DEMO)


_UNETS: list[dict[str, Any]] = [
    {"image_size_px": 64, "dim": 320, "text_encodings": True},
    {"image_size_px": 256, "random_crop_px": 128, "dim": 256, "self_attn": [False] * 4, "sparse_attn": False},
]
_SOUTHPARK: dict[str, Any] = {
    "name": "southpark",
    "source": {
        "wiki": "https://southpark.fandom.com",
        "pages": ["Portal:Characters"],
        "caption_templates": ["{name}[, {gender}][, {hair} hair][, {occupation}]"],
    },
    "prior": {
        "start": "laion-prior",
        "steps": 3_000,
        "batch_size": 256,
        "learning_rate": 1e-5,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 200,
        "weight_decay": 0.06,
        "ema_decay": 0.999,
        "save_every": 250,
        "early_stopping_patience": 4,
        "loader_processes": 4,
    },
    "decoder": {
        "batch_size": 32,
        "learning_rate": 1e-5,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 500,
        "ema_decay": 0.999,
        "save_every": 500,
        "early_stopping_patience": 6,
        "loader_processes": 8,
        "evaluation_samples": 512,
        "unets": [
            {**_UNETS[0], "start": "laion-decoder", "steps": 10_000},
            {**_UNETS[1], "start": "laion-upsampler", "steps": 5_000},
        ],
    },
}
_SOUTHPARK_SCRATCH: dict[str, Any] = {
    "name": "southpark_scratch",
    "source": _SOUTHPARK["source"],
    "prior": {"batch_size": 256, "weight_decay": 0.06, "loader_processes": 4},
    "decoder": {"batch_size": 32, "loader_processes": 8, "evaluation_samples": 512, "unets": _UNETS},
}
_DEMO: dict[str, Any] = {
    "name": "demo",
    "source": {
        "wiki": "http://paper-kids.localhost",
        "demo": {},
        "select": "all",
        "requests_per_second": 0,
        "caption_templates": ["a kid in a {coat} coat and a {hat} {hat kind} at the {place}"],
    },
    "shard": {"image_size_px": 64, "samples_per_shard": 100},
    "embed": {"clip_model": "demo", "name": "tiny", "dim": 128},
    "prior": {
        "steps": 800,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "lr_scheduler": "linear",
        "lr_warmup_steps": 50,
        "max_grad_norm": 1.0,
        "ema_decay": 0.99,
        "save_every": 200,
        "depth": 4,
        "heads": 4,
        "dim_head": 32,
        "dropout": 0.0,
        "normformer": False,
        "text_encodings": False,
        "max_text_len": 1,
        "sample_timesteps": 16,
        "cond_drop_prob": 0.1,
        "precision": "fp32",
    },
    "decoder": {
        "steps": 1200,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "lr_scheduler": "linear",
        "lr_warmup_steps": 50,
        "max_grad_norm": 1.0,
        "ema_decay": 0.99,
        "save_every": 300,
        "unets": [
            {
                "image_size_px": 32,
                "dim": 32,
                "dim_mults": [1, 2, 4],
                "cond_dim": 32,
                "num_resnet_blocks": 1,
                "attn_heads": 4,
                "attn_dim_head": 32,
                "self_attn": [False] * 3,
                "sparse_attn": False,
                "init_cross_embed": False,
            },
            {
                "image_size_px": 64,
                "random_crop_px": 32,
                "steps": 700,
                "lr_scheduler": "cosine",
                "dim": 32,
                "dim_mults": [1, 2],
                "cond_dim": 32,
                "num_resnet_blocks": 1,
                "attn_heads": 4,
                "attn_dim_head": 32,
                "self_attn": [False] * 2,
                "sparse_attn": False,
                "init_cross_embed": False,
            },
        ],
        "objective": "v",
        "learned_variance": False,
        "sample_timesteps": 8,
        "image_cond_drop_prob": 0.1,
        "text_cond_drop_prob": 0.0,
    },
    "judge": {},
}
NAMED: dict[str, dict[str, Any]] = {
    "southpark": _SOUTHPARK,
    "southpark_scratch": _SOUTHPARK_SCRATCH,
    "demo": _DEMO,
}
