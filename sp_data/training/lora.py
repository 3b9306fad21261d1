"""LoRA: small trained matrices beside frozen weights (Hu et al., arXiv:2106.09685), by peft.

    to_q.weight (512, 320), frozen   +   lora_B (512, rank) @ lora_A (rank, 320) * alpha / rank

On the linear layers of attention and feed-forward, and on convolutions. Checkpoints hold the sum, so that what
generates knows nothing of LoRA.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

ADAPTER = "default"


def add_lora(network: nn.Module, rank: int, alpha: int) -> None:
    """Freeze a network's weights, and put trained matrices beside those of its linear and convolution layers."""
    # Imported late: it takes seconds.
    from peft import LoraConfig, inject_adapter_in_model

    network.requires_grad_(False)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    # As one expression, which peft compares with whole names: a list it compares with their ends.
    targets = "|".join(re.escape(name) for name in layers)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), network, ADAPTER)


@torch.no_grad()
def whole_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state of the network as if it had no LoRA, the matrices added to the weights; the network is unchanged."""
    weights: dict[str, torch.Tensor] = {}
    adapted: dict[str, Any] = {name: module for name, module in network.named_modules() if hasattr(module, "lora_A")}
    for name, value in network.state_dict().items():
        if ".lora_" in name:
            continue
        layer, base, last = name.rpartition(".base_layer.")
        if not base:
            weights[name] = value
        elif last == "weight":
            weights[f"{layer}.weight"] = value + adapted[layer].get_delta_weight(ADAPTER).to(value)
        else:
            weights[f"{layer}.{last}"] = value
    return weights
