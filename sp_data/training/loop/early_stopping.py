"""When a training has learnt what it can: its validation loss has not fallen for some evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def is_exhausted(rows: Sequence[Mapping[str, Any]], patience: int | None, step: int) -> bool:
    """Whether the last `patience` evaluations up to a step are no better than the best before them.

    `rows` are those of metrics.jsonl. Without a patience a training is never exhausted.
    """
    losses = [row["val_loss"] for row in rows if row.get("val_loss") is not None and row["step"] <= step]
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])
