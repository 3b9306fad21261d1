"""The optimizer and its learning rate.

AdamW as dalle2-pytorch's trainers set it up (dalle2_pytorch/optimizer.py): betas 0.9 and 0.99, and no weight decay for
norms and biases, that is, for what has fewer than two dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sp_data.errors import StageError
from sp_data.recipe import Training

BETAS = (0.9, 0.99)


def make_optimizer(settings: Training, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Raises StageError if 8-bit AdamW is asked for and bitsandbytes is not installed."""
    trained = [weight for weight in weights if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in trained if weight.ndim < 2], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {"lr": settings.learning_rate, "betas": BETAS, "eps": settings.adam_epsilon}
    if not settings.use_8bit_adam:
        return torch.optim.AdamW([group for group in groups if group["params"]], fused=True, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise StageError(
            "use_8bit_adam: bitsandbytes is not installed; `pip install bitsandbytes`, or set it to false"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit([group for group in groups if group["params"]], **options)
    return optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's averages; its options stay those of the recipe. Raises ValueError if the weights differ."""
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def learning_rate(step: int, settings: Training) -> float:
    """The learning rate at a step (from 0): rising over the warm-up, times what `lr_scheduler` makes of the run."""
    warmup = min(1.0, (step + 1) / settings.lr_warmup_steps) if settings.lr_warmup_steps else 1.0
    share = step / settings.steps
    decay = {"constant": 1.0, "linear": 1.0 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
    return settings.learning_rate * warmup * decay[settings.lr_scheduler]
