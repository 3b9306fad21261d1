"""What a training takes of a device's memory, worked out before it starts: no weight is allocated, nothing is computed.

A step of the model runs with fake tensors, which have a shape and no content. The bytes that are alive after each
operation are added up, through forward and backward pass:

    operation        1      2      3   ...  last of forward  ...  last of backward
    batch of 2    0.1 GB 0.4 GB 0.4 GB ...      7.4 GB       ...       0.0 GB
    batch of 3    0.1 GB 0.5 GB 0.6 GB ...     11.1 GB       ...       0.0 GB

Each operation's bytes grow linearly with the batch, so that two batches give the peak of any other. What is kept for
the backward pass, temporaries, the bfloat16 copies of the weights and what gradient checkpointing computes twice are in
it, as they are. What a kernel takes inside one operation (cuDNN's workspace) and fragmentation are not:
`available_bytes` (free.py) leaves room for them.

GB are 10^9 bytes.
"""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sp_data.errors import StageError
from sp_data.training.memory.cuda_autocast import cuda_autocast

Precision = Literal["bf16", "tf32", "fp32"]

GB = 1e9
ADAM_BYTES = 8
"""Of each trained parameter: two averages in float32."""
ADAM_8BIT_BYTES = 2 + 2 * 4 / 256
"""bitsandbytes: two averages of a byte each, and one float32 scale for each 256 of them."""
ADAM_8BIT_MIN_SIZE = 4096
"""bitsandbytes keeps smaller tensors in float32."""
BATCHES = (2, 3)
"""That are tried. With a batch of 1 some copies are views."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a training takes at its peak, in bytes. Gradients are counted whole, as from the second micro-batch on."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    micro_batch_size: int
    num_trained: int
    """Parameters."""
    lines: tuple[tuple[int, int], ...] = field(repr=False)
    """`(fixed, per picture)` of the operations that can be the peak of the activations."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations

    def at(self, micro_batch_size: int) -> Memory:
        """The same training with another micro-batch."""
        return replace(self, activations=_peak(self.lines, micro_batch_size), micro_batch_size=micro_batch_size)

    def __str__(self) -> str:
        return (
            f"{_size(self.total)}: weights {_size(self.weights)}, gradients {_size(self.gradients)}, optimizer "
            f"{_size(self.optimizer)}, average {_size(self.ema)}, activations {_size(self.activations)} (micro-batch "
            f"of {self.micro_batch_size:,})"
        )


def estimate(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, int], torch.Tensor],
    *,
    micro_batch_size: int,
    precision: Precision,
    use_8bit_adam: bool,
    has_ema: bool = True,
    trainable: Callable[[nn.Module], Iterable[Parameter]] | None = None,
    device: str = "cuda",
    is_distributed: bool = False,
) -> Memory:
    """The peak memory of a step on a `device` ('cuda' or 'cpu'; it need not be there).

    `build` makes the model, and `loss` runs its forward pass for a batch of n; both are called with fake tensors on the
    CPU, and need no autocast of their own. Trained and averaged is what `trainable` gives of a model, or what requires
    a gradient. With `is_distributed`, DistributedDataParallel keeps the gradients a second time, for its messages.

    Raises StageError if the model runs other operations for three pictures than for two.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    timelines = []
    with _same_random_numbers(), FakeTensorMode(allow_non_fake_inputs=True):
        for num_pictures in BATCHES:
            # Made anew, because some layers keep what they computed in their first step.
            with _staying():
                model = build().train()
            trained = _freeze_others(model, trainable)
            with cuda_autocast() if device == "cuda" and precision == "bf16" else contextlib.nullcontext():
                timelines.append(_timeline(model, partial(loss, model, num_pictures), precision == "bf16"))
    lines = _lines(*timelines)
    # A weight that the loss does not depend on has neither gradient nor averages in the optimizer.
    used = [parameter for parameter in trained if parameter.grad is not None and parameter.grad._version > 0]
    return Memory(
        weights=_num_bytes([*model.parameters(), *model.buffers()]),
        gradients=_num_bytes(used) * (2 if is_distributed else 1),
        optimizer=_optimizer_bytes(used, use_8bit_adam),
        ema=_num_bytes(trained) if has_ema else 0,
        activations=_peak(lines, micro_batch_size),
        micro_batch_size=micro_batch_size,
        num_trained=sum(parameter.numel() for parameter in trained),
        lines=lines,
    )


def largest_micro_batch(memory: Memory, available: int, batch_size: int) -> int:
    """The largest micro-batch that fits in `available` bytes, of those that divide a batch into equal parts.

    The last part may be smaller by less than one picture a part: 32 pictures, of which 13 fit, are 11, 11 and 10.
    0 if not even one picture fits.
    """
    sizes = (-(-batch_size // num_parts) for num_parts in range(1, batch_size + 1))
    return next((size for size in sizes if memory.at(size).total <= available), 0)


def choose_micro_batch(
    memory: Memory, available: int, *, name: str, batch_size: int, requested: int | Literal["auto"]
) -> int:
    """The micro-batch that is trained with. `name` is the recipe's part, e.g. 'decoder.unets[1]'.

    One that is asked for is taken, even if it seems not to fit: `sentence` says so. Raises StageError if nothing fits.
    """
    largest = largest_micro_batch(memory, available, batch_size)
    if not largest:
        raise StageError(
            f"{name} takes {memory.at(1)}, but the device has {_size(available)} left: choose, "
            f"unless it is set already, {_advice(memory, name)}, or a larger GPU"
        )
    return largest if requested == "auto" else requested


def sentence(memory: Memory, available: int, *, name: str, batch_size: int) -> str:
    """What the log says before a training starts."""
    largest = largest_micro_batch(memory, available, batch_size)
    verdict = "" if memory.total <= available else ": this may not fit"
    return (
        f"{name}: {memory.num_trained / 1e6:,.1f} million parameters are trained; a step takes {memory}, of "
        f"{_size(available)}{verdict}; the largest micro-batch that fits is {largest:,} of {batch_size:,}"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB / 10 else f"{num_bytes / 1e6:.1f} MB"


def _advice(memory: Memory, name: str) -> str:
    """The settings that save most, the largest saving first."""
    savings = {f"{name}.lora_rank=16": memory.gradients + memory.optimizer + memory.ema}
    if memory.optimizer > ADAM_BYTES / 2 * memory.num_trained:
        savings[f"{name}.use_8bit_adam=true"] = int(memory.optimizer * (1 - ADAM_8BIT_BYTES / ADAM_BYTES))
    if not name.startswith("prior"):
        # dalle2-pytorch has no such switch for the prior.
        savings[f"{name}.gradient_checkpointing=true"] = memory.at(1).activations
    by_size = sorted(savings, key=lambda setting: savings[setting], reverse=True)
    return ", ".join([*by_size, "a smaller prior" if name.startswith("prior") else "a smaller unet"])


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive; `timeline` has the sum after each operation that made one.

    Views make none. How many views there are may depend on the batch.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline: list[int] = []
        self._alive = 0
        # The weights are no activations. A view has the storage of what it is a view of.
        self._storages: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        storages = [tensor.untyped_storage() for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        if sum(self._add(storage) for storage in storages):
            self.timeline.append(self._alive)
        return result

    def _add(self, storage: torch.UntypedStorage) -> bool:
        """False if it is known."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return False
        self._storages[key] = weakref.ref(storage, partial(self._freed, key, size))
        self._alive += size
        return True

    def _freed(self, key: int, size: int, _: Any) -> None:
        del self._storages[key]
        self._alive -= size


def _timeline(model: nn.Module, loss: Callable[[], torch.Tensor], is_bf16: bool) -> list[int]:
    """Bytes alive after each operation of one forward and backward pass that takes some."""
    random.seed(0)
    known = [*model.parameters(), *model.buffers()]
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
            known.append(weight.grad)
    live = _LiveBytes(known)
    with live:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            value = loss()
        torch.autograd.backward([value])
    return live.timeline


def _lines(small: list[int], large: list[int]) -> tuple[tuple[int, int], ...]:
    """`(fixed, per picture)` of each operation that has the most bytes at some batch, from two batches' timelines."""
    if len(small) != len(large):
        raise StageError(
            f"the model runs {len(small):,} operations for {BATCHES[0]} pictures and {len(large):,} for {BATCHES[1]}, "
            "so its memory cannot be told in advance: expected a model whose operations do not depend on the batch"
        )
    step = BATCHES[1] - BATCHES[0]
    lines = {((y - x) // step, x - BATCHES[0] * (y - x) // step) for x, y in zip(small, large, strict=True)}
    kept: list[tuple[int, int]] = []
    for per_picture, fixed in sorted(lines, reverse=True):
        if not kept or fixed > kept[-1][0]:
            kept.append((fixed, per_picture))
    return tuple(kept)


def _peak(lines: Iterable[tuple[int, int]], num_pictures: int) -> int:
    return max(fixed + per_picture * num_pictures for fixed, per_picture in lines)


def _freeze_others(model: nn.Module, trainable: Callable[[nn.Module], Iterable[Parameter]] | None) -> list[Parameter]:
    if trainable is not None:
        chosen = list(trainable(model))
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _optimizer_bytes(trained: list[Parameter], use_8bit_adam: bool) -> int:
    return sum(
        int(parameter.numel() * ADAM_8BIT_BYTES)
        if use_8bit_adam and parameter.numel() >= ADAM_8BIT_MIN_SIZE
        else parameter.numel() * ADAM_BYTES
        for parameter in trained
    )


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """Modules are not moved or converted: all are on the CPU in float32, and torch swaps no fake parameters (peft asks
    it to)."""
    original = nn.Module.to
    nn.Module.to = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.to = original  # type: ignore[method-assign]


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Leaves Python's generator as it was: dalle2-pytorch asks it whether to blur. Fake tensors ask none."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)
