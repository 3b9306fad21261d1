"""The command that starts the page."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from sp_data.cli.options import (
    DEFAULT_LAKE,
    DatasetArgument,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipeOption,
    SetOption,
)
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()
ADDRESS = re.compile(r"https?://[^\s,]+")


@commands.command()
def ui(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    host: Annotated[str, typer.Option(help="Another address of this machine lets others in; needs --auth.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: 7860, or the next that is free; 0: any free one.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Open the page to the internet by Gradio's tunnel; needs --auth.")
    ] = False,
    auth: Annotated[
        str,
        typer.Option(metavar="USER:PASSWORD", envvar="SP_UI_AUTH", help="Ask for this name and password."),
    ] = "",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to draw.")] = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Draw, search the dataset and look at the trainings in a browser; only from this machine, unless you say more."""
    from sp_data.errors import UsageError
    from sp_data.runtime.threads import patient_threads
    from sp_data.ui.server import ServerOptions, serve

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: expected auto, cpu or cuda")
    options = ServerOptions(host, port, share, auth, device)
    recipe, lake = recipe_and_lake(name or name_option, sets, url, quiet=quiet, loads_clip=True)

    def tell(line: str) -> None:
        address = ADDRESS.search(line)
        if json_ and address:
            print_json({"dataset": recipe.name, "address": address[0]})
        elif not json_ and (address or not quiet):
            say(line)

    # torch is imported with the first drawing.
    with patient_threads():
        serve(recipe, lake, options, tell)
