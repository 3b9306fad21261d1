"""Weights to begin a training with, and trained ones for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sp_data.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, QuietOption, RecipeOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.training.weights.adopt import Adopted

commands = typer.Typer(
    no_args_is_help=True, help="Bring in weights to begin a training with (start: NAME in a recipe), or hand some on."
)


@commands.command()
def laion(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[prior|decoder|upsampler]…", help="Which of them, without CLIP; default: all."),
    ] = None,
    prior: Annotated[Path | None, typer.Option(metavar="FILE", help="prior/latest.pth, fetched elsewhere.")] = None,
    decoder: Annotated[
        Path | None, typer.Option(metavar="FILE", help="decoder/v1.0.2/latest.pth, fetched elsewhere.")
    ] = None,
    upsampler: Annotated[
        Path | None, typer.Option(metavar="FILE", help="working/latest.pth, fetched elsewhere.")
    ] = None,
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Fetch LAION's DALL-E 2 (8.7 GB) and OpenAI's ViT-L/14 (0.9 GB): laion-prior, laion-decoder, laion-upsampler."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker
    from sp_data.training.weights.laion import NAMES, fetch

    if quiet:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    local = {"laion-prior": prior, "laion-decoder": decoder, "laion-upsampler": upsampler}
    files = {key: file for key, file in local.items() if file is not None}
    wanted = list(dict.fromkeys([*(f"laion-{part}" for part in names), *files])) if names else NAMES
    with shown(quiet=quiet or json_):
        adopted = fetch(lake, wanted, files=files, clip=not names, progress=onlooker())
    _tell(recipe.name, adopted, quiet=quiet, json_=json_)


@commands.command()
def adopt(
    path: Annotated[
        str,
        typer.Argument(metavar="FILE|FOLDER", help="A .pth or .safetensors, or a checkpoint's folder; may be a URL."),
    ],
    as_: Annotated[str, typer.Option("--name", metavar="NAME", help="What recipes call it.")],
    version: Annotated[
        str | None, typer.Option(help="dalle2-pytorch's that saved it, if the file does not say so.")
    ] = None,
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Take a prior or a decoder's unets into the lake: of dalle2-pytorch, or a checkpoint of any lake."""
    from sp_data.cli.terminal import shown
    from sp_data.training.weights.adopt import adopt as take_in

    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    with shown(quiet=quiet or json_):
        adopted = take_in(lake, path, as_, version=version)
    _tell(recipe.name, adopted, quiet=quiet, json_=json_)


@commands.command()
def export(
    kind: Annotated[str, typer.Argument(metavar="prior|decoder", help="Which model.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new .pth.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="best|latest|FOLDER", help="Which checkpoint; may be repeated, for each unet."),
    ] = None,
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a trained model as one .pth that dalle2-pytorch and dalle2-laion load."""
    from sp_data.errors import UsageError

    if kind not in ("prior", "decoder"):
        raise UsageError(f"no model {kind!r}: expected prior or decoder")
    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    exported = _export(lake, "prior" if kind == "prior" else "decoder", checkpoint or ["best"], out)
    if json_:
        print_json({"dataset": recipe.name, "kind": kind, "file": str(out), "checkpoints": exported})
    elif not quiet:
        say(f"{recipe.name}: {', '.join(exported)} in {out}, {out.stat().st_size / 1e6:,.1f} MB")


def _export(lake: Lake, kind: Literal["prior", "decoder"], named: list[str], out: Path) -> list[str]:
    """Write the named checkpoints; returns their names."""
    from sp_data.errors import UsageError
    from sp_data.generation.models import find_checkpoints
    from sp_data.training.models import LAYOUT, OLD_LAYOUT, joined
    from sp_data.training.weights.adopt import WEIGHTS, checked_weights
    from sp_data.training.weights.export import export_decoder, export_prior

    checkpoints = find_checkpoints(kind, lake, named)
    old = [checkpoint.model.get(LAYOUT) == OLD_LAYOUT for checkpoint in checkpoints]
    if len(set(old)) > 1:
        raise UsageError(
            "of these unets some compute as dalle2-pytorch 1.0 did and some as 1.15: no version loads both from one "
            "file; export checkpoints of one kind (--checkpoint)"
        )
    weights = [
        checked_weights(
            lake, next(entry for entry in checkpoint.files if entry.path.endswith(WEIGHTS)), "delete its folder"
        )
        for checkpoint in checkpoints
    ]
    configs = [checkpoint.model for checkpoint in checkpoints]
    if kind == "prior":
        export_prior(configs[0], weights[0], out, legacy=old[0])
    else:
        export_decoder(joined(configs), weights, out, legacy=old[0])
    return [checkpoint.name for checkpoint in checkpoints]


def _tell(dataset: str, adopted: list[Adopted], *, quiet: bool, json_: bool) -> None:
    if json_:
        print_json({"dataset": dataset, "weights": [_facts(weights) for weights in adopted]})
    elif not quiet:
        for weights in adopted:
            say(str(weights))


def _facts(weights: Adopted) -> dict[str, Any]:
    facts = weights.model_dump(include={"name", "kind", "unet", "legacy", "version", "num_parameters", "source"})
    return {**facts, "sha256": weights.digest}
