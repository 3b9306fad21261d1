"""The recipe kept beside each dataset, so that a command can be given the dataset's name instead of a recipe.

lake/southpark/recipe.json
"""

from __future__ import annotations

import json

from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.recipe import Recipe, build

RECIPE_FILE = "recipe.json"


def remember_recipe(recipe: Recipe, lake: Lake) -> None:
    """Keep the recipe beside its dataset, so that later commands need not be given it again."""
    data = recipe.model_dump_json(indent=1).encode() + b"\n"
    if not lake.exists(RECIPE_FILE) or lake.read_bytes(RECIPE_FILE) != data:
        with lake.writer("recipe"):
            lake.write_bytes(RECIPE_FILE, data)


def recall_recipe(lake: Lake) -> Recipe | None:
    """The recipe that a dataset was last made with; None if none is kept. Raises CorruptFile, RecipeError."""
    if not lake.exists(RECIPE_FILE):
        return None
    try:
        fields = json.loads(lake.read_bytes(RECIPE_FILE))
    except ValueError as error:
        raise CorruptFile(
            f"{lake.full(RECIPE_FILE)} is not a valid recipe ({error}); delete it and give the recipe again: its "
            "stock name or a .yaml file"
        ) from error
    return build(fields, lake.full(RECIPE_FILE))
