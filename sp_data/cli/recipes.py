"""Which recipe a command means (sp_data/kept_recipe.py), with what may surprise said on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sp_data import errors
from sp_data.cli.output import say

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.recipe import Recipe


def recipe_and_lake(
    name: str | None,
    sets: list[str] | None,
    url: str,
    *,
    quiet: bool = False,
    keeps: bool = False,
    default: str | None = None,
    loads_clip: bool = False,
) -> tuple[Recipe, Lake]:
    """The recipe that a command means, and its dataset's place in the lake, as `find_recipe` finds them.

    `loads_clip`: the command loads the recipe's CLIP, whose file must have been named by the person, not by the lake
    alone.

    Raises UsageError, RecipeError, CorruptFile, StageError.
    """
    from sp_data.kept_recipe import find_recipe, recall_recipe
    from sp_data.recipe.load import named_in_file

    recipe, lake = find_recipe(name, sets or [], url, say=None if quiet else _note, keeps=keeps, default=default)
    if not named_in_file(name or "") and recall_recipe(lake) is not None:
        if loads_clip:
            _check_clip(recipe.embed.clip_model, sets or [], lake.dataset)
        if keeps:
            _check_machines(recipe, sets or [], lake.dataset)
    return recipe, lake


def _check_machines(recipe: Recipe, sets: list[str], dataset: str) -> None:
    """Raises StageError if the dataset's own recipe sends work to other machines, and the person did not say so.

    Whoever answers there decides what runs here."""
    fields = {
        "machines.ray_address": recipe.machines.ray_address if recipe.machines.runner == "ray" else "",
        "shard.distributor": "" if recipe.shard.distributor == "multiprocessing" else recipe.shard.distributor,
        "embed.distributor": "" if recipe.embed.distributor in ("here", "sequential") else recipe.embed.distributor,
    }
    named = [setting.partition("=")[0] for setting in sets]
    for field, value in fields.items():
        if value and field not in named and field.partition(".")[0] not in named:
            raise errors.StageError(
                f"the recipe that dataset {dataset!r} keeps sends work to other machines ({field} = {value}); if it is "
                f"yours, say so: --set {field}={value}, or give your .yaml file"
            )


def _check_clip(clip_model: str, sets: list[str], dataset: str) -> None:
    """Raises StageError if the dataset's own recipe names a CLIP by its file, and the person did not: a lake may be a
    stranger's, and what it names would be read as a model."""
    from sp_data.recipe.clip_names import file_named

    asked_for = any(setting.partition("=")[0] in ("embed", "embed.clip_model") for setting in sets)
    if file_named(clip_model) is not None and not asked_for:
        raise errors.StageError(
            f"the recipe that dataset {dataset!r} keeps names a file as its CLIP ({clip_model}); if it is yours, say "
            f"so: --set embed.clip_model={clip_model}, or give your .yaml file"
        )


def _note(sentence: str) -> None:
    say(f"sp-data: {sentence}", err=True)
