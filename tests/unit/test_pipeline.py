"""The list of stages: everything it names exists, and each stage needs only stages before it."""

from __future__ import annotations

import importlib

import pytest

from sp_data.dataset.curate.tables import COPIES_VERSION
from sp_data.dataset.embed import folder
from sp_data.errors import UsageError
from sp_data.pipeline import DATASET_STAGES, PIPELINE, STAGES, TRAINING_STAGES, Stage, stage_named, stages_of
from sp_data.recipe import Recipe, demo, southpark


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_everything_that_an_entry_names_exists(stage: Stage) -> None:
    for address in filter(None, (stage.function, stage.identity_fields, stage.lost_files)):
        module, _, function = address.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert stage.recipe_part in Recipe.model_fields
    assert isinstance(stage.fields_of(demo()), dict)


def test_a_stage_needs_only_stages_before_it() -> None:
    before: set[str] = set()
    for stage in PIPELINE:
        assert set(stage.inputs) <= before
        before.add(stage.name)
    assert list(STAGES) == [*DATASET_STAGES, *TRAINING_STAGES]


def test_a_recipe_leaves_out_the_stages_for_which_it_has_no_part() -> None:
    assert stages_of(demo()) == tuple(STAGES)
    assert stages_of(southpark()) == tuple(name for name in STAGES if name != "judge")
    assert stages_of(demo(), until="shard") == DATASET_STAGES[: DATASET_STAGES.index("shard") + 1]


def test_an_unknown_stage_is_refused_with_the_names_of_the_stages() -> None:
    with pytest.raises(UsageError, match="no stage 'paint': expected one of scrape, curate"):
        stage_named("paint")


def test_folders_with_a_version_in_their_name_have_that_of_their_stage() -> None:
    """Another version makes other files: they must not lie beside the ones that older snapshots name."""
    assert STAGES["curate"].version == COPIES_VERSION
    assert STAGES["embed"].version == folder.VERSION
