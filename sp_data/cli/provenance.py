"""Commands that tell where a picture came from, and search a dataset."""

from __future__ import annotations

from pathlib import Path
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


@commands.command()
def explain(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A PNG that sp-data drew, or any other picture.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many of the nearest pictures to name.")] = 5,
    name: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Say where a picture came from: checkpoints, datasets, and the nearest training pictures with their pages."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.threads import import_torch

    recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, loads_clip=True)
    with shown(quiet=quiet or json_):
        import_torch()
        from sp_data.generation.explain import explain as trace
        from sp_data.generation.inputs import read_picture

        read_picture(picture)  # says what is wrong with the file, if anything is
        explanation = trace(picture.read_bytes(), str(picture), recipe, lake, k)
    if json_:
        print_json({"dataset": recipe.name, **explanation.as_json()})
    else:
        for line in explanation.lines():
            say(line)


@commands.command("serve-search")
def serve_search(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 1234,
    host: Annotated[str, typer.Option(help="Another address of this machine lets others search too.")] = "127.0.0.1",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Serve a dataset to clip-retrieval's front end and client: search by words, pictures or vectors."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.threads import import_torch

    recipe, lake = recipe_and_lake(name or name_option, sets, url, quiet=quiet, loads_clip=True)
    with shown(quiet=quiet or json_):
        import_torch()
        from sp_data.generation.serve_search import search_server

        with search_server(recipe, lake, host, port) as server:
            if json_:
                print_json({"dataset": recipe.name, "address": server.address, "pictures": server.num_pictures})
            else:
                say(f"{recipe.name}: {server.num_pictures:,} pictures to search at {server.address}")
            server.serve()
