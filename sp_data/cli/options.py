"""Options that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RECIPES = "A dataset in the lake by its name, southpark, demo, or a .yaml file"
RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help=f"{RECIPES}; default: the only dataset in the lake, demo in an empty one."),
]
DatasetArgument = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help=f"{RECIPES}; default: the only dataset in the lake.")
]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", metavar="RECIPE", help=f"{RECIPES}; default: the only dataset in the lake.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change a field of the recipe; may be repeated.",
    ),
]
LakeOption = Annotated[
    str, typer.Option("--lake", metavar="URL", envvar="SP_LAKE", help="Where the data lies: a folder or a URL.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and what was asked for.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DEFAULT_LAKE = "./lake"
STOCK = "demo"
"""The recipe of a command that names none, in an empty lake."""
