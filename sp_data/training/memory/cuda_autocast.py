"""The autocast of a CUDA device, for fake CPU tensors: it keeps more in float32 than a CPU's does.

               reads       writes on a CPU   on a CUDA device
    linear     float32     bfloat16          bfloat16
    softmax    bfloat16    bfloat16          float32
    group_norm bfloat16    bfloat16          float32, and a float32 copy of what it reads is kept

Fake CUDA tensors would be plainer, but torch 2.15 runs no backward pass of them where there is no GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

WRITE_FLOAT32 = ("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum", "cumprod", "linalg_vector_norm")
"""Operations that read bfloat16 and write float32, unless they are called with a dtype."""
READ_FLOAT32 = (
    *("group_norm", "layer_norm", "native_layer_norm", "rms_norm", "norm.Scalar", "cosine_similarity"),
    *("exp", "expm1", "log", "log1p", "logsumexp", "softplus", "rsqrt", "reciprocal"),
    *("pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d"),
)
"""Operations that read a float32 copy of what is not."""
READ_BFLOAT16 = ("einsum",)
"""Operations that read a bfloat16 copy before they change its shape; on a CPU, after that."""
READ_AS_IT_IS = ("cat", "stack")
"""Operations that read what is there; on a CPU, copies of the widest dtype."""


@contextlib.contextmanager
def cuda_autocast() -> Iterator[None]:
    """A bfloat16 autocast of fake CPU tensors with a CUDA device's rules.

    The rules hold for the whole process while the context lasts, also in a backward pass that computes blocks again.
    """
    rules: dict[tuple[str, ...], Callable[..., Any]] = {
        WRITE_FLOAT32: _write_float32,
        READ_FLOAT32: partial(_read, torch.float32),
        READ_BFLOAT16: partial(_read, torch.bfloat16),
        READ_AS_IT_IS: partial(_read, None),
    }
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        for names, rule in rules.items():
            for name in names:
                kernel = partial(rule, _operator(name))
                library.impl(name, kernel, "AutocastCPU")  # type: ignore[no-untyped-call]
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _write_float32(operator: Any, *args: Any, **kwargs: Any) -> Any:
    if not any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values())):
        kwargs["dtype"] = torch.float32
    with _no_autocast():
        return operator(*args, **kwargs)


def _read(dtype: torch.dtype | None, operator: Any, *args: Any, **kwargs: Any) -> Any:
    with _no_autocast():
        return operator(*tree_map_only(torch.Tensor, partial(_cast, dtype), args), **kwargs)


def _no_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))


def _cast(dtype: torch.dtype | None, tensor: torch.Tensor) -> torch.Tensor:
    is_cast = dtype is not None and tensor.dtype in (torch.float32, torch.bfloat16)
    return tensor.to(dtype) if is_cast else tensor
