"""Make dalle2-pytorch's models faster without changing what they compute, their parameters or their names.

    switch             replaces                                    by
    fused_attention    softmax(q k) v, written out                 torch's scaled_dot_product_attention
    fused_norms        variance, mean and division, written out    torch's layer_norm
    channels_last      convolutions on (b, c, h, w) memory         the same on (b, h, w, c) memory; for GPUs
    compile_blocks     one operation after another                 compiled blocks; for GPUs

Each works alone and with the others, on a model of fresh, loaded or adapted weights (LoRA replaces the linear layers,
which are called as modules), and with gradient checkpointing. They act on the instances of one model: a copy made by
copy.deepcopy has the fused switches too, any other model is as it was.
"""

from __future__ import annotations

import math
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_data.training.dalle2 import dalle2_module

FEW_KEYS = 128
"""Below, torch's kernel for bfloat16 on a CPU takes up to 2.5 times as long as the attention written out."""
COMPILATIONS_PER_BLOCK = 4
"""With and without gradients, in training and in evaluation."""


def fused_attention(model: nn.Module) -> int:
    """Compute every Attention and CrossAttention of `model` by scaled_dot_product_attention; returns their number.

    `scale` and `cosine_sim` are read at each call, because a model of old weights has others. Softmax is in float32
    in any precision. Dropout draws other random numbers than before, with the same probability.
    """
    return _replace_forward(model, {"Attention": _attention, "CrossAttention": _cross_attention})


def fused_norms(model: nn.Module) -> int:
    """Compute every LayerNorm and ChanLayerNorm of `model` by torch's layer_norm; returns their number."""
    return _replace_forward(model, {"LayerNorm": _layer_norm, "ChanLayerNorm": _chan_layer_norm})


def channels_last(model: nn.Module) -> None:
    """Keep the weights of convolutions, and with them all feature maps, with the channel as the fastest index.

    For tensor cores; on a CPU it costs a few per cent. safetensors saves only contiguous tensors: call `.contiguous()`
    on each weight first.
    """
    model.to(memory_format=torch.channels_last)


def compile_blocks(model: nn.Module, **options: Any) -> int:
    """Compile each ResnetBlock, attention and feed-forward layer of `model` when it is first called; returns their
    number. `options` are torch.compile's.

    What lies between the blocks (random masks, gradient checkpointing, the unet's skips) stays Python. A block is
    compiled for its shapes, so batches should keep theirs. Copies of the model are not compiled.

    Call `fused_norms` first, as a training and a generator do: with ChanLayerNorm written out, torch 2.11 compiles a
    backward pass that fails ("invalid gradient at index 1 - got [320] but expected shape compatible with
    [1, 320, 1, 1]").
    """
    module = dalle2_module()
    kinds = (module.ResnetBlock, module.Attention, module.LinearAttention)
    blocks = [block for block in model.modules() if isinstance(block, kinds)]
    for transformer in model.modules():
        if isinstance(transformer, module.CausalTransformer):
            # A layer is a pair: attention, feed-forward.
            blocks += [layer[1] for layer in transformer.layers]
    config = torch._dynamo.config
    # torch counts per function, and every ResnetBlock has the same: beyond the limit it would silently compile no more.
    config.recompile_limit = max(config.recompile_limit, COMPILATIONS_PER_BLOCK * len(blocks))
    for block in blocks:
        block.compile(**{"dynamic": False, **options})
    return len(blocks)


def _replace_forward(model: nn.Module, forwards: dict[str, Any]) -> int:
    """Give each module whose class is dalle2-pytorch's of that name the function as its method `forward`."""
    module = dalle2_module()
    by_class = {getattr(module, name): forward for name, forward in forwards.items()}
    replaced = [(child, by_class[type(child)]) for child in model.modules() if type(child) in by_class]
    for child, forward in replaced:
        # copy.deepcopy binds a method to the copy.
        child.forward = MethodType(forward, child)
    return len(replaced)


def _attention(self: Any, x: Tensor, mask: Tensor | None = None, attn_bias: Tensor | None = None) -> Tensor:
    """Multi-query attention: `x` is `(b, n, dim)`, `mask` `(b, n)` True = keep, `attn_bias` `(heads, n, n + 1)`."""
    if _is_faster_written_out(x, num_keys=x.shape[-2] + 1):
        written_out: Tensor = type(self).forward(self, x, mask=mask, attn_bias=attn_bias)
        return written_out
    batch, length, _ = x.shape
    x = self.norm(x)
    q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) * self.scale
    k, v = self.to_kv(x).chunk(2, dim=-1)
    if self.rotary_emb is not None:
        q, k = self.rotary_emb.rotate_queries_or_keys(q), self.rotary_emb.rotate_queries_or_keys(k)
    null_key, null_value = self.null_kv.unbind(dim=0)
    k = torch.cat((null_key.expand(batch, 1, -1), k), dim=-2)
    v = torch.cat((null_value.expand(batch, 1, -1), v), dim=-2)
    if self.cosine_sim:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    # All heads share keys and values: they are one head with `heads` times as many queries, and nothing is repeated.
    attended = F.scaled_dot_product_attention(
        q.flatten(1, 2)[:, None],
        k[:, None],
        v[:, None],
        attn_mask=_bias_of_all_heads(self, x, mask, attn_bias),
        dropout_p=self.dropout.p if self.training else 0.0,
        scale=self.scale,
    )
    attended = attended.view(batch, self.heads, length, -1).transpose(1, 2).flatten(-2)
    out: Tensor = self.to_out(attended)
    return out


def _bias_of_all_heads(self: Any, x: Tensor, mask: Tensor | None, attn_bias: Tensor | None) -> Tensor | None:
    """What is added to the similarities, `(1 or b, 1, heads * n, n + 1)`, or a mask of that shape, True = attend.

    Nothing is kept between calls: `attn_bias` is differentiated, and building this is below 1 % of the layer.
    """
    length = x.shape[-2]
    # The null key comes first, and every query sees it: query i sees the keys 0 to i + 1.
    allowed = None
    if self.causal:
        allowed = torch.ones((1, 1, length, length + 1), dtype=torch.bool, device=x.device).tril(1)
    if mask is not None:
        kept = F.pad(mask, (1, 0), value=True)[:, None, None]
        allowed = kept if allowed is None else allowed & kept
    if attn_bias is None:
        if allowed is None:
            return None
        return allowed.expand(-1, self.heads, length, -1).flatten(1, 2)[:, None]
    bias = attn_bias[None] if allowed is None else attn_bias.masked_fill(~allowed, -math.inf)
    return bias.flatten(1, 2)[:, None]


def _cross_attention(self: Any, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    """`x` is `(b, n, dim)`, `context` `(b, m, context_dim)`, `mask` `(b, m)` True = keep. It has no dropout, whatever
    its `dropout` says: the original applies none."""
    if _is_faster_written_out(x, num_keys=context.shape[-2] + 1):
        written_out: Tensor = type(self).forward(self, x, context, mask=mask)
        return written_out
    x, context = self.norm(x), self.norm_context(context)
    q, k, v = (
        part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for part in (self.to_q(x), *self.to_kv(context).chunk(2, dim=-1))
    )
    null_key, null_value = self.null_kv.unbind(dim=0)
    k = torch.cat((null_key.expand(x.shape[0], self.heads, 1, -1), k), dim=-2)
    v = torch.cat((null_value.expand(x.shape[0], self.heads, 1, -1), v), dim=-2)
    if self.cosine_sim:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    kept = F.pad(mask, (1, 0), value=True)[:, None, None] if mask is not None else None
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=kept, scale=self.scale)
    out: Tensor = self.to_out(attended.transpose(1, 2).flatten(-2))
    return out


def _is_faster_written_out(x: Tensor, num_keys: int) -> bool:
    is_low_precision = x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and is_low_precision and num_keys < FEW_KEYS


def _layer_norm(self: Any, x: Tensor) -> Tensor:
    """Over the last dimension, with a gain and no bias; epsilon is larger below float32."""
    eps = self.eps if x.dtype == torch.float32 else self.fp16_eps
    if self.stable:
        x = x / x.amax(dim=-1, keepdim=True).detach()
    # The gain decides the result's precision: it is float32 under autocast.
    x = x.to(torch.promote_types(x.dtype, self.g.dtype))
    return F.layer_norm(x, x.shape[-1:], self.g, None, eps)


def _chan_layer_norm(self: Any, x: Tensor) -> Tensor:
    """Over the channels of `(b, c, h, w)`, as `_layer_norm`; the result lies in memory as `(b, h, w, c)`."""
    eps = self.eps if x.dtype == torch.float32 else self.fp16_eps
    if self.stable:
        x = x / x.amax(dim=1, keepdim=True).detach()
    x = x.to(torch.promote_types(x.dtype, self.g.dtype)).movedim(1, -1)
    return F.layer_norm(x, x.shape[-1:], self.g.flatten(), None, eps).movedim(-1, 1)
