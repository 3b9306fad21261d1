"""Make models of dalle2-pytorch 1.15.6 compute what those of 1.0 computed, from outside; `legacy.py` says what changed.

Downsample        4 x 4 convolution of stride 2 instead of pixel unshuffle and 1 x 1 convolution
Attention         softmax(q·k / √d): 1.15.6 applies its scale twice, so the scale becomes d^-¼; no cosine
LinearAttention   values neither of unit length nor divided
norms             eps 1e-5 at every precision; since 1.4.2 it is 1e-3 below float32
prior             guidance and dropped conditions change nothing: the mask never reached the transformer
"""

from __future__ import annotations

from typing import Any

import torch
from dalle2_pytorch.dalle2_pytorch import (
    Attention,
    ChanLayerNorm,
    DiffusionPriorNetwork,
    LayerNorm,
    LinearAttention,
    Unet,
)
from torch import Tensor, nn


def patch(model: nn.Module) -> None:
    """Patch a Unet, a Decoder, a DiffusionPrior or a DiffusionPriorNetwork in place; before its weights are loaded.

    A Decoder may build new unets from those that it is given: patch `decoder`, not your own unet. Again is harmless.
    """
    for module in list(model.modules()):
        if isinstance(module, Unet):
            for level in module.downs:
                level[0], level[4] = _downsample(level[0]), _downsample(level[4])
        elif isinstance(module, Attention):
            module.cosine_sim = False
            module.scale = (module.to_kv.out_features // 2) ** -0.25
        elif isinstance(module, LinearAttention):
            module.__class__ = PlainLinearAttention
        elif isinstance(module, LayerNorm | ChanLayerNorm):
            module.fp16_eps = module.eps
        elif isinstance(module, DiffusionPriorNetwork):
            module.__class__ = UnguidedPriorNetwork


def _downsample(module: nn.Module | None) -> nn.Module | None:
    """A convolution in the place of Sequential(pixel unshuffle, 1 x 1 convolution); every other module as it is."""
    if not isinstance(module, nn.Sequential) or not isinstance(unshuffled := module[1], nn.Conv2d):
        return module
    weight = unshuffled.weight
    channels = unshuffled.in_channels // 4
    return nn.Conv2d(channels, unshuffled.out_channels, 4, 2, 1, device=weight.device, dtype=weight.dtype)


class PlainLinearAttention(LinearAttention):  # type: ignore[misc]
    """`(batch, channels, height, width)` -> the same."""

    def forward(self, fmap: Tensor) -> Tensor:
        batch, _, height, width = fmap.shape
        qkv = self.to_qkv(self.norm(fmap)).chunk(3, dim=1)
        q, k, v = (part.reshape(batch * self.heads, -1, height * width) for part in qkv)  # (batch · heads, dim, pixels)
        context = torch.einsum("bdn,ben->bde", k.softmax(dim=2), v)
        out = torch.einsum("bde,bdn->ben", context, q.softmax(dim=1) * self.scale)
        return self.to_out(self.nonlin(out.reshape(batch, -1, height, width)))  # type: ignore[no-any-return]


class UnguidedPriorNetwork(DiffusionPriorNetwork):  # type: ignore[misc]
    """A prior's network that never drops a condition."""

    def forward_with_cond_scale(self, *args: Any, cond_scale: float = 1.0, **kwargs: Any) -> Tensor:
        return self.forward(*args, **kwargs)

    def forward(
        self, *args: Any, text_cond_drop_prob: float = 0.0, image_cond_drop_prob: float = 0.0, **kwargs: Any
    ) -> Tensor:
        return super().forward(*args, **kwargs)  # type: ignore[no-any-return]
