"""Weights into a model, strictly: each name of one is a name of the other, with the same shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sp_data.errors import UsageError

SCHEDULES = ("noise_scheduler.", "noise_schedulers.")
"""Buffers that follow from the configuration; a model makes its own."""


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a network's weights into a model of its kind.

    The model must be patched first if the weights are legacy. A model on the meta device takes the tensors over
    without a copy, so that memory-mapped ones are read when they are first used.

    Raises UsageError that names the first weight that does not match, and how many do not.
    """
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(SCHEDULES)}
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is no weight of the model" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the model's {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise UsageError(f"{source} does not fit the model: {problems[0]}{more}; compare its configuration")
    model.load_state_dict(dict(state), strict=False, assign=any(value.is_meta for value in own.values()))
