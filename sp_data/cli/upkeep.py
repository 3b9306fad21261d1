"""Commands that look after a dataset: what became of a picture, what is to be forgotten, what can be removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sp_data.cli.options import DEFAULT_LAKE, DatasetArgument, JsonOption, LakeOption, QuietOption, RecipeOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()


@commands.command()
def why(
    file: Annotated[
        str | None,
        typer.Argument(
            help='Such as "File:Kenny.png", an address of a list, or a key of an import; default: every file.'
        ),
    ] = None,
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Say what became of a file: its key and caption, or the stage that dropped it and why."""
    from sp_data.upkeep.why import Fate, fate_of, fates

    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    files = [fate_of(file, lake)] if file else list(fates(lake))
    if not json_:
        for fate in files:
            say(str(fate))
        return
    gone = [asdict(fate) for fate in files if not isinstance(fate, Fate)]
    kept = [asdict(fate) for fate in files if isinstance(fate, Fate)]
    print_json({"dataset": recipe.name, "files": kept, **({"gone": gone[0]} if gone else {})})


@commands.command()
def forget(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help='Such as "File:Kenny.png", an address of a list, or a key of an import.'),
    ],
    name: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Take pictures out for good: never fetched again, left out of the dataset; lists the checkpoints that saw them."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker
    from sp_data.upkeep.forget import forget as take_out

    recipe, lake = recipe_and_lake(name, None, url, quiet=quiet)
    with shown(quiet=quiet or json_):
        outcome = take_out(files, recipe, lake, progress=onlooker())
    cure = outcome.cure(recipe, lake)
    if json_:
        fields = asdict(outcome)
        for name in ("checkpoints", "checkpoints_unknown"):
            fields[name] = [checkpoint.folder for checkpoint in getattr(outcome, name)]
        print_json({"dataset": recipe.name, **fields, "next": cure})
    else:
        say(f"{recipe.name}: {outcome}")
        for line in filter(None, (*outcome.lines(), cure)):
            say(line)


@commands.command()
def compact(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Put what lives in half-dead, forgotten or tiny shards into new, full ones; then embed, reorder and verify."""
    from sp_data.cli.terminal import shown
    from sp_data.runtime.progress import onlooker
    from sp_data.upkeep.compact import FORGOTTEN
    from sp_data.upkeep.compact import compact as compact_dataset

    recipe, lake = recipe_and_lake(name or name_option, None, url, quiet=quiet)
    with shown(quiet=quiet or json_):
        compacted = compact_dataset(recipe, lake, progress=onlooker())
    if json_:
        print_json(
            {
                "dataset": recipe.name,
                "state": compacted.state,
                "removed": [{"shard": number, "reason": reason} for number, reason in compacted.removed.items()],
                "added": list(compacted.added),
                "moved": compacted.num_moved,
                "stages": list(compacted.stages),
            }
        )
    elif not quiet:
        say(f"{recipe.name}: {compacted}")
        if compacted.removed:
            # Older snapshots need the old shards still, and what was forgotten must go all the same.
            options = "--keep 1 --delete" if FORGOTTEN in compacted.removed.values() else "--delete"
            say(f"{lake.command('gc', options)} removes what is left of the old shards")


@commands.command()
def gc(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    keep: Annotated[int, typer.Option(help="Snapshots of each stage that stay; checkpoints' datasets do too.")] = 3,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this it is only listed.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """List, or with --delete remove, files that no kept snapshot or checkpoint needs."""
    from sp_data.cli.terminal import shown
    from sp_data.upkeep.collect_garbage import collect

    recipe, lake = recipe_and_lake(name or name_option, None, url, quiet=quiet)
    with shown(quiet=True):
        waste = collect(recipe, lake, keep=keep, delete=delete)
    if json_:
        folders = {name: {"files": files, "bytes": size} for name, (files, size) in waste.folders.items()}
        total = {"files": waste.num_files, "bytes": waste.num_bytes}
        print_json({"dataset": recipe.name, "deleted": delete, **total, "folders": folders, "warnings": waste.warnings})
        return
    for name, (files, size) in waste.folders.items():
        say(f"{name:<16} {files:>9,} files {size / 1e6:>12,.1f} MB")
    for warning in waste.warnings:
        say(f"sp-data: {warning}", err=True)
    outcome = "removed" if delete else "may be removed (--delete does it)" if waste.num_files else "may be removed"
    say(f"{recipe.name}: {waste.num_files:,} files, {waste.num_bytes / 1e6:,.1f} MB {outcome}")
