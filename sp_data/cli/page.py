"""The command that starts the page."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from sp_data.cli.options import DEFAULT_LAKE, DatasetArgument, LakeOption, RecipeOption, SetOption
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()


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
) -> None:
    """Draw, search the dataset and look at the trainings in a browser; only from this machine, unless you say more."""
    from sp_data.errors import UsageError
    from sp_data.ui.server import ServerOptions, serve

    # SIGTERM becomes SIGINT in this command (app.py), and what a shell started in the background ignores that.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: expected auto, cpu or cuda")
    options = ServerOptions(host, port, share, auth, device)
    recipe, lake = recipe_and_lake(name or name_option, sets, url)
    serve(recipe, lake, options, lambda line: typer.echo(line))
