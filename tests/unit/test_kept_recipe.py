"""What a dataset keeps of the recipes that it was asked to be made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sp_data.errors import (
    LakeBusy,
    LakeFull,
    ListShrank,
    RecipeError,
    SpDataError,
    StageError,
    StageNotDone,
    WikiUnreachable,
)
from sp_data.kept_recipe import recall_recipe, remember_recipe, remembered
from sp_data.lake import Lake
from sp_data.recipe import load_recipe

KEPT = load_recipe("demo")
SLIP = load_recipe("demo", ["source.demo.num_kids=30"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), "demo")


def fails_with(error: SpDataError, lake: Lake, *, makes: str = "") -> None:
    with pytest.raises(type(error)), remembered(SLIP, lake):
        assert recall_recipe(lake) == SLIP, "a kill leaves the recipe of what was begun"
        if makes:
            lake.write_bytes(makes, b"{}")
        raise error


REFUSALS = [
    RecipeError("no file"),
    ListShrank("3 are left"),
    StageNotDone("embed is stale"),
    StageError("no such CLIP"),
    WikiUnreachable("no wiki of that name"),
    LakeBusy("another run writes"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_what_is_refused_is_not_kept(lake: Lake, refusal: SpDataError) -> None:
    fails_with(refusal, lake)
    assert recall_recipe(lake) is None
    remember_recipe(KEPT, lake)
    fails_with(refusal, lake)
    assert recall_recipe(lake) == KEPT


@pytest.mark.parametrize(
    "path", ["manifests/scrape/latest.json", "wiki/journal/00000000.jsonl", "runs/prior-1f0c55ab/config.json"]
)
def test_that_with_which_something_was_made_or_begun_is_kept(lake: Lake, path: str) -> None:
    remember_recipe(KEPT, lake)
    fails_with(StageError("it ended in the middle"), lake, makes=path)
    assert recall_recipe(lake) == SLIP


def test_that_of_a_run_that_can_go_on_is_kept(lake: Lake) -> None:
    fails_with(LakeFull("the disk is full"), lake)
    assert recall_recipe(lake) == SLIP
    with remembered(KEPT, lake):
        pass
    assert recall_recipe(lake) == KEPT


def test_that_of_another_command_is_left_alone(lake: Lake) -> None:
    other = load_recipe("demo", ["source.demo.num_kids=40"])
    with pytest.raises(RecipeError), remembered(SLIP, lake):
        remember_recipe(other, lake)
        raise RecipeError("no file")
    assert recall_recipe(lake) == other
