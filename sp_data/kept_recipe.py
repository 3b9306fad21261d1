"""The recipe that is kept beside each dataset, so that a dataset is a recipe by its name.

lake/southpark/recipe.json
"""

from __future__ import annotations

import json

from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.recipe import Recipe, build

RECIPE_FILE = "recipe.json"


def remember_recipe(recipe: Recipe, lake: Lake) -> None:
    """Keep the recipe beside its dataset, so that later commands need not be told it again."""
    data = recipe.model_dump_json(indent=1).encode() + b"\n"
    if not lake.exists(RECIPE_FILE) or lake.read_bytes(RECIPE_FILE) != data:
        with lake.writer("recipe"):
            lake.write_bytes(RECIPE_FILE, data)


def recall_recipe(lake: Lake) -> Recipe | None:
    """The recipe that a dataset was last made with, None if there is no such dataset. Raises RecipeError."""
    if not lake.exists(RECIPE_FILE):
        return None
    try:
        fields = json.loads(lake.read_bytes(RECIPE_FILE))
    except ValueError as error:
        raise CorruptFile(f"{lake.full(RECIPE_FILE)} is no recipe ({error}); run the dataset once more") from error
    return build(fields, lake.full(RECIPE_FILE))
