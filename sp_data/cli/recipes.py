"""Which recipe a command means (sp_data/kept_recipe.py), with what may surprise said on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

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
) -> tuple[Recipe, Lake]:
    """The recipe that a command means, and its dataset's place in the lake, as `find_recipe` finds them.

    Raises UsageError, RecipeError, CorruptFile.
    """
    from sp_data.kept_recipe import find_recipe

    return find_recipe(name, sets or [], url, say=None if quiet else _note, keeps=keeps, default=default)


def _note(sentence: str) -> None:
    typer.echo(f"sp-data: {sentence}", err=True)
