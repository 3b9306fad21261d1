"""The precision in which a CLIP computes: bfloat16 where the processor has it.

It is twice (AVX-512) to four times (AMX) as fast as float32; the stored rows are float16 either way. The precision is
recorded with the embeddings, and so is how close a few pictures of the run came to float32. A model that bfloat16 does
not suit runs in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
RequestedPrecision = Literal["auto", "fp32", "bf16"]
Encode = Callable[["torch.Tensor"], "torch.Tensor"]
MIN_COSINE = 0.999
"""Between a row in bfloat16 and the same row in float32: below it, the model runs in float32."""


def choose(requested: RequestedPrecision, device: str) -> Precision:
    """`auto` is bf16 where the processor has it: elsewhere it is emulated, and slower than float32."""
    import torch

    if requested != "auto":
        return requested
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def in_bf16(encode: Encode, device: str) -> Encode:
    """The same tower in bfloat16. Its output is float32, so that lengths are computed in float32."""
    import torch

    def encoded(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            output = encode(batch)
        return output.float()

    return encoded
