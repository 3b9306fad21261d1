"""Since which step a training over-fits, from the rows of its metrics.jsonl.

    {"step": 100, "loss": 0.081, "val_loss": 0.079}
    {"step": 150, "loss": 0.066}                        evaluations are rarer than rows
    {"step": 200, "loss": 0.052, "val_loss": 0.074}     <- the lowest: over-fitting since here, if the next three ...
    {"step": 300, "loss": 0.041, "val_loss": 0.078}
    {"step": 400, "loss": 0.035, "val_loss": 0.083}
    {"step": 500, "loss": 0.030, "val_loss": 0.090}     ... lie over 0.074 x 1.02, and the training loss fell meanwhile

The validation loss is taken at fixed noise and times, so that two evaluations of equal weights agree to the last digit:
a rise of two per cent is no chance. The training loss is taken at random ones; it is averaged over a window.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RISE = 0.02
"""Part of the lowest validation loss by which later ones must exceed it."""
EVALUATIONS = 3
"""The latest evaluations that must all exceed it: one or two may be a step too far that training takes back."""


@dataclass(frozen=True, slots=True)
class Overfitting:
    """A training that became worse on unseen pictures while it became better on its own."""

    since_step: int
    """Of the lowest validation loss: the checkpoint to use."""
    until_step: int
    """Of the latest evaluation."""
    lowest_val_loss: float
    latest_val_loss: float
    loss_before: float
    """Training loss, averaged over the last EVALUATIONS evaluations up to `since_step`."""
    loss_now: float
    """Training loss, averaged over the last EVALUATIONS evaluations."""

    @property
    def rise(self) -> float:
        """Part of the lowest validation loss by which the latest exceeds it."""
        return (self.latest_val_loss - self.lowest_val_loss) / abs(self.lowest_val_loss)

    def __str__(self) -> str:
        return (
            f"over-fitting since step {self.since_step:,}: the validation loss rose from {self.lowest_val_loss:.4g} to "
            f"{self.latest_val_loss:.4g} at step {self.until_step:,} ({self.rise:+.0%}), while the training loss fell "
            f"from {self.loss_before:.4g} to {self.loss_now:.4g}; use the checkpoint of step {self.since_step:,}, and "
            "train on more pictures or for fewer steps"
        )


def overfitting(rows: Sequence[Mapping[str, Any]]) -> Overfitting | None:
    """Whether a training over-fits at its latest row, and since when; None if not, or if it cannot be told yet.

    `rows` are in the order of their steps: `step`, `loss` (the mean training loss since the row before), and `val_loss`
    where it was evaluated. A training that becomes worse on its own pictures too diverges, and does not over-fit.
    """
    evaluated = [row for row in rows if row.get("val_loss") is not None]
    if len(evaluated) <= EVALUATIONS:
        return None
    # The first of equal ones.
    position = min(range(len(evaluated)), key=lambda number: evaluated[number]["val_loss"])
    lowest, latest = evaluated[position], evaluated[-1]
    limit = lowest["val_loss"] + RISE * abs(lowest["val_loss"])
    if position >= len(evaluated) - EVALUATIONS or any(row["val_loss"] <= limit for row in evaluated[-EVALUATIONS:]):
        return None
    before = _mean_loss(rows, _window(evaluated, position))
    now = _mean_loss(rows, _window(evaluated, len(evaluated) - 1))
    if now >= before:
        return None
    return Overfitting(lowest["step"], latest["step"], lowest["val_loss"], latest["val_loss"], before, now)


def _window(evaluated: Sequence[Mapping[str, Any]], end: int) -> range:
    """The steps after one evaluation up to another, EVALUATIONS later; from the first row if there are fewer."""
    start = end - EVALUATIONS
    first = evaluated[start]["step"] + 1 if start >= 0 else 0
    return range(first, evaluated[end]["step"] + 1)


def _mean_loss(rows: Sequence[Mapping[str, Any]], steps: range) -> float:
    return statistics.fmean(row["loss"] for row in rows if row["step"] in steps)
