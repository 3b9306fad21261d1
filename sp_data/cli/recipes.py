"""Which recipe a command means: a dataset knows its own, so its name is enough.

A recipe that is kept with a dataset is never replaced in silence by a stock recipe of the same name, and `--set` on top
of it says what it changes.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sp_data import errors

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.recipe import Recipe

FIELDS_NAMED = 4
"""Fields of a difference that a note names."""


def recipe_and_lake(
    name: str | None,
    sets: list[str] | None,
    url: str,
    *,
    quiet: bool = False,
    keeps: bool = False,
    default: str | None = None,
) -> tuple[Recipe, Lake]:
    """The recipe that a command means, and its dataset's place in the lake.

    `name`: a dataset in the lake, a stock recipe or a YAML file; None: the only dataset, or `default` in an empty lake.
    `keeps`: the command keeps the recipe beside the dataset, with what `sets` changed.

    Raises UsageError, RecipeError.
    """
    from sp_data.kept_recipe import recall_recipe
    from sp_data.lake import Lake, is_dataset_name
    from sp_data.recipe import NAMED, load_recipe
    from sp_data.recipe.load import changed, named_in_file

    wanted = name or _only_dataset(url, default)
    kept = None if named_in_file(wanted) or not is_dataset_name(wanted) else recall_recipe(Lake(url, wanted))
    if kept is None:
        if wanted not in NAMED and not named_in_file(wanted):
            known = _known(url)
            similar = difflib.get_close_matches(wanted, known, n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise errors.RecipeError(f"no recipe {wanted!r}: expected {', '.join(known)}, or a .yaml file{hint}")
        recipe = load_recipe(wanted, sets or [])
        return recipe, Lake(url, recipe.name)
    recipe = changed(kept, sets or [], f"of dataset {wanted!r}")
    if not quiet:
        if name in NAMED and (fields := _differences(load_recipe(name, sets or []), recipe, "stock")):
            _note(f"{name}: the dataset's own recipe is taken, not the stock one: {fields}")
        if fields := _differences(kept, recipe, "was"):
            _note(f"{wanted}: {fields}, {'from now on' if keeps else 'for this command'}")
    return recipe, Lake(url, wanted)


def _only_dataset(url: str, default: str | None) -> str:
    from sp_data.lake import datasets

    names = datasets(url)
    if len(names) == 1:
        return names[0]
    if not names and default:
        return default
    content = f"datasets {', '.join(names)}" if names else "no dataset"
    raise errors.UsageError(f"lake {url} holds {content}: say which by its name")


def _known(url: str) -> list[str]:
    from sp_data.lake import datasets
    from sp_data.recipe import NAMED

    return list(dict.fromkeys([*datasets(url), *NAMED]))


def _differences(before: Recipe, after: Recipe, word: str) -> str:
    """'curate.min_side_px = 32 (was 64), …': the fields in which two recipes differ, empty if there are none."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    fields = [field for field in {**old, **new} if old.get(field) != new.get(field)]
    named = [f"{field} = {new.get(field)!r} ({word} {old.get(field)!r})" for field in fields[:FIELDS_NAMED]]
    more = len(fields) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _flat(fields: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value})
    return flat


def _note(sentence: str) -> None:
    typer.echo(f"sp-data: {sentence}", err=True)


def is_ours(package: str) -> bool:
    """Whether a package of this name is the one that came with sp-data, and not another one that hides it."""
    from importlib.util import find_spec

    import sp_data

    spec = find_spec(package)
    home = Path(sp_data.__file__).parent.parent
    return spec is not None and spec.origin is not None and Path(spec.origin).parent == home / package
