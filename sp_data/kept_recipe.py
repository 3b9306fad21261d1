"""The recipe kept beside each dataset, so that a command can be given the dataset's name instead of a recipe.

lake/southpark/recipe.json
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import CorruptFile, RecipeError
from sp_data.lake import Lake
from sp_data.recipe import Recipe, build

RECIPE_FILE = "recipe.json"
MAX_BYTES = 16 << 20
FIELDS_NAMED = 4
"""Fields that a difference names."""

log = logging.getLogger(__name__)


def remember_recipe(recipe: Recipe, lake: Lake) -> None:
    """Keep the recipe beside its dataset, so that later commands need not be given it again."""
    data = recipe.model_dump_json(indent=1).encode() + b"\n"
    kept = lake.read_bytes(RECIPE_FILE) if lake.exists(RECIPE_FILE) else None
    if kept == data:
        return
    if kept is not None and not lake.is_writable:
        log.warning("%s cannot be written: its recipe stays as it is", lake.root)
        return
    # One that cannot be read is replaced.
    with contextlib.suppress(CorruptFile, RecipeError):
        if (before := recall_recipe(lake)) and (fields := differences(before, recipe, "was")):
            log.info("%s: the dataset's recipe changes: %s", lake.dataset, fields)
    with lake.writer("recipe"):
        lake.write_bytes(RECIPE_FILE, data)


def recall_recipe(lake: Lake) -> Recipe | None:
    """The recipe that a dataset was last made with; None if none is kept. Raises CorruptFile, RecipeError."""
    if not lake.exists(RECIPE_FILE):
        return None
    cure = "delete it and give the recipe again: its stock name or a .yaml file"
    try:
        fields = parse_json(lake.read_bytes(RECIPE_FILE, MAX_BYTES))
        if isinstance(fields, dict):
            # A dataset is called as its folder is, which may have been copied.
            fields["name"] = lake.dataset
        return build(fields, lake.full(RECIPE_FILE))
    except ValueError as error:
        raise CorruptFile(f"{lake.full(RECIPE_FILE)} is not a valid recipe ({error}); {cure}") from error
    except RecipeError as error:
        raise RecipeError(f"{error}; {cure}") from error


def differences(before: Recipe, after: Recipe, word: str) -> str:
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
