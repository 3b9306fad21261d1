"""When a changed dataset is due for a fine-tuning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sp_data.recipe import Recipe, load_recipe
from sp_data.training.dataset_change import DatasetChange, due

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def change(num_added: int, num_gone: int, *, days_ago: float | None = 3) -> DatasetChange:
    before_at = "" if days_ago is None else (NOW - timedelta(days=days_ago)).isoformat()
    return DatasetChange(
        "now",
        tuple((f"File:{number}.png", "a") for number in range(num_added)),
        tuple((f"File:{number}.png", "b") for number in range(num_gone)),
        None if days_ago is None else "before",
        before_at,
    )


def recipe(*sets: str) -> Recipe:
    return load_recipe("demo", sets)


@pytest.mark.parametrize(
    ("sets", "since", "is_due"),
    [
        ((), change(1, 0), True),
        ((), change(0, 1), True),
        ((), change(0, 0), False),
        (("follow_up.finetune=false",), change(9, 9), False),
        (("follow_up.after_changes=5",), change(2, 2), False),
        (("follow_up.after_changes=5",), change(3, 2), True),
        (("follow_up.after_changes=5", "follow_up.after_days=3"), change(1, 0), True),
        (("follow_up.after_changes=5", "follow_up.after_days=4"), change(1, 0), False),
        (("follow_up.after_changes=5", "follow_up.after_days=1"), change(0, 0), False),
        (("follow_up.after_changes=500",), change(40, 0, days_ago=None), True),
    ],
)
def test_a_fine_tuning_is_due_by_changes_or_by_age(sets: tuple[str, ...], since: DatasetChange, is_due: bool) -> None:
    assert due(recipe(*sets), since, NOW)[0] is is_due
