"""Which recipe a command means: a dataset knows its own, so its name is enough.

A recipe that is kept with a dataset is never replaced in silence by a stock recipe of the same name, and `--set` on top
of it says what it changes.
"""

from __future__ import annotations

import difflib
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
    """The recipe that a command means, and its dataset's place in the lake.

    `name`: a dataset in the lake, a stock recipe or a YAML file; None: the only dataset, or `default` in an empty lake.
    `keeps`: the command keeps the recipe beside the dataset, with what `sets` changed. `loads_clip`: the command loads
    the recipe's CLIP, whose file must have been named by the person, not by the lake alone.

    Raises UsageError, RecipeError, StageError.
    """
    from sp_data.kept_recipe import differences, recall_recipe
    from sp_data.lake import Lake, is_dataset_name
    from sp_data.recipe import NAMED, load_recipe
    from sp_data.recipe.load import changed, named_in_file

    wanted = name or _only_dataset(url, default)
    if named_in_file(wanted):
        recipe = load_recipe(wanted, sets or [])
        return recipe, Lake(url, recipe.name)
    kept = recall_recipe(Lake(url, wanted)) if is_dataset_name(wanted) else None
    if kept is None:
        recipe = _stock(wanted, sets or [], url)
        if recipe.name != wanted and recall_recipe(Lake(url, recipe.name)):
            raise errors.UsageError(f"dataset {recipe.name!r} has a recipe of its own: name it instead of {wanted}")
        return recipe, Lake(url, recipe.name)
    recipe = changed(kept, sets or [], f"of dataset {wanted!r}")
    if recipe.name != wanted:
        raise errors.UsageError(
            f"--set name={recipe.name}: a dataset keeps its name; a .yaml file can give another one"
        )
    if loads_clip:
        _check_clip(recipe.embed.clip_model, sets or [], wanted)
    if keeps:
        _check_machines(recipe, sets or [], wanted)
    if not quiet:
        if name in NAMED and (fields := differences(load_recipe(name, sets or []), recipe, "stock")):
            _note(f"{name}: the dataset's own recipe is taken, not the stock one: {fields}")
        if fields := differences(kept, recipe, "was"):
            _note(f"{wanted}: {fields}, {'from now on' if keeps else 'for this command'}")
    return recipe, Lake(url, wanted)


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


def _stock(name: str, sets: list[str], url: str) -> Recipe:
    """The stock recipe of this name, for a dataset that keeps no recipe. Raises RecipeError."""
    from sp_data.lake import datasets
    from sp_data.recipe import NAMED, load_recipe

    names = datasets(url)
    if name in NAMED:
        if name in names:
            _note(f"{name}: no recipe is kept with the dataset; the stock recipe is taken")
        return load_recipe(name, sets)
    if name in names:
        raise errors.RecipeError(
            f"dataset {name!r} in {url} keeps no recipe; give the .yaml file that it was made with"
        )
    known = list(dict.fromkeys([*names, *NAMED]))
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    raise errors.RecipeError(f"no recipe {name!r}: expected {', '.join(known)}, or a .yaml file{hint}")


def _only_dataset(url: str, default: str | None) -> str:
    from sp_data.lake import datasets

    names = datasets(url)
    if len(names) == 1:
        return names[0]
    if not names and default:
        return default
    content = f"datasets {', '.join(names)}" if names else "no dataset"
    raise errors.UsageError(f"lake {url} holds {content}: say which by its name")


def _note(sentence: str) -> None:
    say(f"sp-data: {sentence}", err=True)
