"""Commands that make pictures, and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sp_data import errors
from sp_data.cli.options import (
    DEFAULT_LAKE,
    STOCK,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipeArgument,
    RecipeOption,
    SetOption,
)
from sp_data.cli.output import print_json
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()


@commands.command()
def dream(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help='Such as "a kid in a red coat".')],
    num_pictures: Annotated[int, typer.Option("-n", min=1, help="Pictures of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the next have the next seeds.")] = 0,
    cond_scale: Annotated[
        float, typer.Option(min=0, help="Guidance; above 1 follows the words more closely, where the decoder can.")
    ] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the decoder's sampler.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the PNGs; default: generated/ in the lake.")] = None,
    name: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="best|latest|PATH", help="Default: best; a PATH for each of prior and decoder."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to draw.")] = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make pictures from words; seed and checkpoints are written inside each PNG."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker

    if device not in ("auto", "cpu", "cuda"):
        raise errors.UsageError(f"--device {device}: expected auto, cpu or cuda")
    recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet)
    with shown(quiet=quiet or json_):
        from sp_data.generation.dream import SamplingOptions, dream_files, orders

        options = SamplingOptions(cond_scale, steps)
        wanted = orders(prompts, num_pictures, seed)
        pictures = dream_files(recipe, lake, wanted, options, checkpoint, out, device=device, progress=onlooker())
    if json_:
        print_json({"dataset": recipe.name, "pictures": [{"path": path, **origin} for path, origin in pictures]})
    else:
        for path, _ in pictures:
            typer.echo(path)


@commands.command()
def judge(
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    pictures: Annotated[
        Path | None, typer.Option(help="Judge the PNGs of this folder, made by `dream`, against their own prompts.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure coats and hats of the demo's pictures against the words that asked for them."""
    from sp_data.cli.terminal import shown

    if pictures is not None:
        if name or sets:
            raise errors.UsageError("--pictures judges PNGs by their own prompts: it takes neither RECIPE nor --set")
        from sp_data.judge.stage import judge_folder

        table = judge_folder(pictures)
    else:
        from sp_data.kept_recipe import remember_recipe
        from sp_data.pipeline import run_stage
        from sp_data.runtime.progress import onlooker

        recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK)
        with shown(quiet=quiet or json_):
            remember_recipe(recipe, lake)
            table = run_stage("judge", recipe, lake, progress=onlooker()).manifest.details["table"]
    if json_:
        print_json(table)
        return
    for name, line in table.items():
        clip = f", by CLIP {line['clip_coat']:.1%} and {line['clip_hat']:.1%}" if "clip_coat" in line else ""
        typer.echo(f"{name:<7} n {line['n']:>4}   coat {line['coat']:.1%}   hat {line['hat']:.1%}{clip}")
