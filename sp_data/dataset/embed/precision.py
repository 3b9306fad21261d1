"""In which numbers a CLIP computes: bfloat16 where the processor has it.

It is twice (AVX-512) to four times (AMX) as fast as float32. Stored are float16 rows either way. What was
computed is recorded with the embeddings, with how far a few pictures of the run were from float32; a model that
bfloat16 does not suit goes on in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
Asked = Literal["auto", "fp32", "bf16"]
Encode = Callable[["torch.Tensor"], "torch.Tensor"]
MIN_COSINE = 0.999
"""Between a row in bfloat16 and the same in float32."""


def choose(asked: Asked, device: str) -> Precision:
    """`auto` is bf16 where it is the processor's own: elsewhere it is emulated, and slower than float32."""
    import torch

    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def in_bf16(encode: Encode, device: str) -> Encode:
    """The same tower in bfloat16; what it gives is float32, so that lengths are taken in float32."""
    import torch

    def encoded(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            made = encode(batch)
        return made.float()

    return encoded
