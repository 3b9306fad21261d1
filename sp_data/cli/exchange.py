"""Commands that take datasets in from other tools, and hand them on to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sp_data.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, QuietOption, RecipeOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()


@commands.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier export.")],
    to: Annotated[str, typer.Option(metavar="dalle2-pytorch|imagefolder|kohya", help="Who is to read it.")],
    split: Annotated[
        list[str] | None, typer.Option(metavar="train|val|test", help="Only this one; may be repeated.")
    ] = None,
    embeddings_in_tars: Annotated[
        bool, typer.Option("--embeddings-in-tars", help="dalle2-pytorch: as .npy beside each .jpg, not in folders.")
    ] = False,
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write the verified dataset, without what has a tombstone, in a form that another trainer reads."""
    from sp_data.cli.terminal import shown
    from sp_data.dataset.curate.splits import SPLITS
    from sp_data.exchange.export.run import export as write_export
    from sp_data.exchange.export.run import form_of
    from sp_data.pipeline import done_manifest
    from sp_data.runtime.progress import onlooker

    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    with shown(quiet=quiet or json_):
        verified = done_manifest("verify", recipe, lake, for_what="export")
        form = form_of(to, verified, recipe, embeddings_in_tars=embeddings_in_tars)
        splits = tuple(split or SPLITS)
        exported = write_export(verified, form, lake, folder, to=to, splits=splits, progress=onlooker())
    if json_:
        print_json(
            {
                "dataset": recipe.name,
                "to": to,
                "folder": str(folder),
                "shards": exported.num_shards,
                "samples": exported.num_samples,
                "splits": exported.splits,
                "dropped": exported.dropped,
            }
        )
    elif not quiet:
        left_out = ", ".join(f"{reason} {count:,}" for reason, count in exported.dropped.items()) or "none"
        say(f"{recipe.name}: {exported.num_samples:,} samples for {to} in {folder}; left out: {left_out}")


@commands.command(name="import")
def import_(
    shards: Annotated[Path, typer.Option(help="img2dataset's output folder: NNNNN.tar, .parquet and _stats.json.")],
    embeddings: Annotated[Path, typer.Option(help="clip-retrieval's: img_emb/, text_emb/ and metadata/.")],
    name: Annotated[str, typer.Option(help="The dataset's name in the lake.")],
    layout: Annotated[
        str | None, typer.Option(metavar="S+I", help="Digits of a key for shard and index; default: what is found.")
    ] = None,
    clip_model: Annotated[str, typer.Option(help="The CLIP that made the embeddings.")] = "ViT-L/14",
    reembed: Annotated[int | None, typer.Option(min=0, help="How many pictures to embed again.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make a dataset of someone's own webdataset shards and CLIP embeddings, and verify it."""
    from sp_data.cli.terminal import shown
    from sp_data.exchange.imports.run import ImportRequest, import_dataset
    from sp_data.keys import KeyLayout
    from sp_data.lake import Lake
    from sp_data.runtime.progress import onlooker

    request = ImportRequest(shards, embeddings, name, clip_model, KeyLayout.parse(layout) if layout else None, reembed)
    with shown(quiet=quiet or json_):
        result, tally = import_dataset(request, Lake(lake, name), progress=onlooker())
    left_out = {**tally.failed, **tally.dropped}
    if tally.num_lost:
        left_out["no embedding"] = tally.num_lost
    if json_:
        print_json(
            {
                "dataset": name,
                "layout": result.manifest.details["layout"],
                "rows": tally.num_rows,
                "splits": dict(tally.splits),
                "dropped": left_out,
                "strays": tally.num_strays,
            }
        )
    elif not quiet:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items()) or "none"
        say(
            f"{name}: {tally.splits.total():,} of {tally.num_rows:,} rows hold, layout "
            f"{result.manifest.details['layout']}; left out: {reasons}; embeddings without a picture: "
            f"{tally.num_strays:,}"
        )


@commands.command()
def layout(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="img2dataset's output, or clip-retrieval's.")],
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Say which digits of the keys in a folder name the shard, and what proves it."""
    from sp_data.dataset.reorder.layout import layout_of

    key_layout = layout_of(folder)
    if json_:
        print_json(
            {
                "layout": str(key_layout.layout),
                "shards": len(key_layout.num_rows),
                "keys": key_layout.num_keys,
                "source": key_layout.source,
                "exact": key_layout.exact,
            }
        )
    else:
        say(str(key_layout))
