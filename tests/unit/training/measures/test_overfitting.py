from __future__ import annotations

from typing import Any

from sp_data.training.measures.overfitting import overfitting


def rows(losses: list[float], val_losses: list[float]) -> list[dict[str, Any]]:
    """An evaluation every 100 steps, and a row without one between."""
    return [
        row
        for number, (loss, val_loss) in enumerate(zip(losses, val_losses, strict=True), start=1)
        for row in (
            {"step": 100 * number - 50, "loss": loss},
            {"step": 100 * number, "loss": loss, "val_loss": val_loss},
        )
    ]


FALLING = [0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15]


def test_a_validation_loss_that_rises_while_the_other_falls_is_over_fitting_since_its_lowest() -> None:
    found = overfitting(rows(FALLING, [0.9, 0.8, 0.7, 0.72, 0.75, 0.8, 0.84]))
    assert found is not None
    assert (found.since_step, found.until_step) == (300, 700)
    assert (found.lowest_val_loss, found.latest_val_loss) == (0.7, 0.84)
    assert round(found.loss_before, 6) == 0.7
    assert round(found.loss_now, 6) == round((0.3 + 0.2 + 0.15) / 3, 6)
    assert str(found) == (
        "over-fitting since step 300: the validation loss rose from 0.7 to 0.84 at step 700 (+20%), while the training "
        "loss fell from 0.7 to 0.2167; use the checkpoint of step 300, and train on more pictures or for fewer steps"
    )


def test_a_falling_validation_loss_is_none() -> None:
    assert overfitting(rows(FALLING, [0.9, 0.8, 0.7, 0.6, 0.55, 0.52, 0.5])) is None


def test_a_rise_within_two_per_cent_is_none() -> None:
    assert overfitting(rows(FALLING, [0.9, 0.8, 0.7, 0.71, 0.712, 0.713, 0.7135])) is None


def test_two_evaluations_over_the_lowest_are_not_enough() -> None:
    assert overfitting(rows(FALLING, [0.9, 0.8, 0.75, 0.72, 0.7, 0.8, 0.84])) is None


def test_three_evaluations_are() -> None:
    assert overfitting(rows(FALLING, [0.9, 0.8, 0.75, 0.7, 0.74, 0.8, 0.84])) is not None


def test_one_of_the_latest_three_back_at_the_lowest_ends_it() -> None:
    assert overfitting(rows(FALLING, [0.9, 0.7, 0.75, 0.8, 0.85, 0.705, 0.84])) is None


def test_a_training_that_diverges_does_not_over_fit() -> None:
    assert overfitting(rows([0.9, 0.7, 0.5, 0.6, 0.7, 0.8, 0.9], [0.9, 0.8, 0.7, 0.72, 0.75, 0.8, 0.84])) is None


def test_one_noisy_training_loss_changes_nothing() -> None:
    noisy = [*FALLING[:-1], 0.6]
    assert overfitting(rows(noisy, [0.9, 0.8, 0.7, 0.72, 0.75, 0.8, 0.84])) is not None


def test_a_lowest_loss_at_the_first_evaluation_counts() -> None:
    found = overfitting(rows(FALLING[:4], [0.7, 0.72, 0.75, 0.8]))
    assert found is not None
    assert found.since_step == 100


def test_without_evaluations_nothing_is_said() -> None:
    assert overfitting([]) is None
    assert overfitting([{"step": step, "loss": 1 / step, "val_loss": None} for step in range(1, 50)]) is None
