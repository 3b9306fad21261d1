"""The configurations of dalle2-pytorch's own training scripts, for one export.

Both give the share of each split as a fraction. dalle2-pytorch requires that the three add up to exactly 1 (it refuses
0.7 + 0.2 + 0.1), then rounds them to whole shards or rows; see `shares`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sp_data.recipe import Decoder, Prior, Recipe, Training

SEED = 0
"""dalle2-pytorch shuffles shard numbers with it before it splits them; dalle2.py numbers the shards accordingly."""
RESOLUTION = 2**40
SLACK = 1 / 8


def shares(num_train: int, num_val: int, num_test: int) -> dict[str, float]:
    """Fractions that add up to exactly 1 in any order, and from which dalle2-pytorch computes these numbers.

    The decoder's script rounds (`round(share * total)`), the prior's truncates (`int(share * total)`): train and val
    get an eighth of a sample more than they need, so that both scripts get the same numbers. All fractions are
    multiples of 2^-40, which floats add without rounding.
    """
    total = num_train + num_val + num_test
    slack = SLACK if min(num_train, num_val, num_test) else 0
    train = _exact((num_train + slack) / total)
    val = _exact((num_val + slack) / total) if num_test else 1 - train
    return {"train": train, "val": val, "test": 1 - train - val}


def _exact(share: float) -> float:
    return round(share * RESOLUTION) / RESOLUTION


def decoder_training(
    recipe: Recipe,
    dim: int,
    folder: Path,
    *,
    num_samples: int,
    splits: dict[str, float],
    shard_width: int,
    index_width: int,
    num_shards: int,
    embeddings: Path | None,
) -> dict[str, Any]:
    """A TrainDecoderConfig. `embeddings` None: they are inside the tars.

    The decoder is conditioned on image embeddings only: captions would need text encodings, which the loader cannot
    read.
    """
    # A late import: it takes seconds.
    from sp_data.training.models import decoder_config

    settings = recipe.decoder
    unets = tuple(unet.model_copy(update={"text_encodings": False}) for unet in settings.unets)
    size = settings.image_size_px
    # dalle2-pytorch's Decoder would take every n-th pixel of a larger picture; this scales the whole picture.
    whole = {"size": [size, size], "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    return {
        "decoder": decoder_config(settings.model_copy(update={"unets": unets}), dim),
        "data": {
            "webdataset_base_url": str(folder / "shards" / "{}.tar"),
            "img_embeddings_url": None if embeddings is None else str(embeddings),
            # With more workers, every worker reads every sample; with none, the loader does not start.
            "num_workers": 1,
            "batch_size": settings.batch_size,
            "start_shard": 0,
            "end_shard": num_shards - 1,
            "shard_width": shard_width,
            "index_width": index_width,
            "splits": splits,
            "preprocessing": {"RandomResizedCrop": whole, "ToTensor": True},
        },
        "train": {
            "epochs": _epochs(settings, num_samples),
            "lr": settings.learning_rate,
            "wd": settings.weight_decay,
            "warmup_steps": settings.lr_warmup_steps or None,
            "max_grad_norm": settings.max_grad_norm,
            "ema_beta": settings.ema_decay,
            "save_every_n_samples": settings.save_every * settings.batch_size,
        },
        "evaluate": {"n_evaluation_samples": 100},
        "tracker": _tracker(folder, "decoder"),
        "seed": SEED,
    }


def prior_training(
    recipe: Recipe,
    clip_model: str,
    dim: int,
    folder: Path,
    *,
    num_samples: int,
    num_train: int,
    splits: dict[str, float],
) -> dict[str, Any]:
    """A TrainDiffusionPriorConfig. It names the CLIP if dalle2-pytorch can load it, that is, if it is OpenAI's."""
    from sp_data.training.models import prior_config

    settings: Prior = recipe.prior
    is_openai = ":" not in clip_model and not clip_model.startswith("/") and clip_model != "demo"
    model = prior_config(settings, dim)
    if is_openai:
        model["clip"] = {"make": "openai", "model": clip_model}
    else:
        # Text encodings would have to come from its CLIP.
        model["condition_on_text_encodings"] = False
    return {
        "prior": model,
        "data": {
            "image_url": str(folder / "prior" / "img_emb"),
            "meta_url": str(folder / "prior" / "metadata"),
            "splits": splits,
            "batch_size": settings.batch_size,
            "num_data_points": num_samples,
        },
        "train": {
            "epochs": _epochs(settings, num_train),
            "lr": settings.learning_rate,
            "wd": settings.weight_decay,
            "max_grad_norm": settings.max_grad_norm,
            "ema_beta": settings.ema_decay,
            "warmup_steps": settings.lr_warmup_steps or None,
            "random_seed": settings.seed,
        },
        "tracker": _tracker(folder, "prior"),
    }


def _epochs(settings: Decoder | Prior | Training, num_samples: int) -> int:
    """The number of epochs in which the recipe's steps are done."""
    return math.ceil(settings.steps * settings.batch_size / max(num_samples, 1))


def _tracker(folder: Path, kind: str) -> dict[str, Any]:
    # Beside the export, not in it: a newer export may replace it.
    return {
        "data_path": str(folder.with_name(f"{folder.name}-{kind}")),
        "log": {"log_type": "console"},
        "save": [{"save_to": "local"}],
    }
