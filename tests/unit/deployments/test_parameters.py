"""What a form's fields make of a recipe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from prefect import State
from prefect.states import Completed

from flows.parameters import Changes, chosen_recipe, in_one_sentence
from sp_data.errors import RecipeError
from sp_data.kept_recipe import recipe_files
from sp_data.recipe import load_recipe


def test_what_is_left_empty_is_as_the_recipe_says(tmp_path: Path) -> None:
    assert Changes().lines() == []
    assert chosen_recipe("demo", str(tmp_path / "lake"), Changes(), []) == load_recipe("demo")


def test_each_field_reaches_its_place(tmp_path: Path) -> None:
    changes = Changes(
        wiki="https://wiki.example",
        select="categories",
        pages=["Portal:Ada, and others", "no"],
        contact="no",
        acknowledge_terms=True,
        requests_per_second=0.5,
        min_side_px=99,
        prior_steps=7,
        decoder_steps=8,
        batch_size=9,
        prompts=["a kid: red\n and \U0001f600\u2028blue", "null", "me@example.org: #1"],
        ask_first="yes",
    )
    recipe = chosen_recipe("southpark", str(tmp_path / "lake"), changes, ["source.categories=[Kids]"])
    assert recipe.source.wiki == "https://wiki.example"
    assert recipe.source.pages == ("Portal:Ada, and others", "no")
    assert recipe.source.contact == "no"
    assert (recipe.source.select, recipe.source.acknowledge_terms) == ("categories", True)
    assert (recipe.source.requests_per_second, recipe.curate.min_side_px) == (0.5, 99)
    assert recipe.prior.steps == 7
    assert {unet.steps or recipe.decoder.steps for unet in recipe.decoder.unets} == {8}
    assert recipe.decoder.batch_size == 9
    assert recipe.follow_up.prompts == ("a kid: red and \U0001f600 blue", "null", "me@example.org: #1")
    assert recipe.follow_up.ask_first
    assert all(name in _reached(changes) for name in Changes.model_fields), "no field is forgotten"


def _reached(changes: Changes) -> set[str]:
    return {name for name in Changes.model_fields if Changes(**{name: getattr(changes, name)}).lines()}


def test_a_file_of_the_folder_beside_the_lake_is_found_by_its_name(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("name: mywiki\nsource: {wiki: 'http://localhost:1', select: all}\n")
    assert recipe_files(lake) == ["mine.yaml"]
    recipe = chosen_recipe("mine.yaml", lake, Changes(prior_steps=5), [])
    assert (recipe.name, recipe.prior.steps) == ("mywiki", 5)


def test_a_wiki_beside_the_demos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="serves a made-up wiki of its own"):
        chosen_recipe("demo", str(tmp_path / "lake"), Changes(wiki="https://southpark.fandom.com"), [])


def test_another_wiki_gets_a_dataset_of_its_own_by_its_name(tmp_path: Path) -> None:
    lake, polite = str(tmp_path / "lake"), {"contact": "me@example.org", "acknowledge_terms": True}
    with pytest.raises(RecipeError, match=r"source\.contact is empty"):
        chosen_recipe("southpark", lake, Changes(wiki="https://mine.example.org"), ["name=mine"])
    changes = Changes(wiki="https://mine.example.org", **polite)
    recipe = chosen_recipe("southpark", lake, changes, ["name=mine"])
    assert (recipe.name, recipe.source.wiki) == ("mine", "https://mine.example.org")


@pytest.mark.parametrize("refused", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(refused: int) -> None:
    ended = _flow_that_meets(OSError(refused, os.strerror(refused), "lake/demo/shards/00001.tar"))
    assert isinstance(ended, State) and ended.is_failed()
    assert ended.message == ("no space left (lake/demo/shards/00001.tar); free some, then run the same command again")


def test_another_fault_of_the_machine_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        _flow_that_meets(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert _flow_that_meets(None).is_completed()


def _flow_that_meets(error: OSError | None) -> State:
    @in_one_sentence
    def flow() -> State[str]:
        if error:
            raise error
        return Completed()

    ended: State = flow()
    return ended
