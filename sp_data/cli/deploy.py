"""The command that makes deployments, schedules and automations on a Prefect server."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from sp_data import errors
from sp_data.cli.options import DEFAULT_LAKE, STOCK, JsonOption, LakeOption, QuietOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

commands = typer.Typer()


@commands.command()
def deploy(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE",
            help="Datasets in the lake, stock recipes or .yaml files; default: the files in recipes/, else the "
            "datasets in the lake, else demo.",
        ),
    ] = None,
    url: LakeOption = DEFAULT_LAKE,
    every: Annotated[
        str, typer.Option(metavar="CRON", help="When to scrape again, in UTC; the demo has no schedule.")
    ] = "0 4 * * 1",
    notify: Annotated[
        str | None,
        typer.Option(metavar="TYPE/NAME", help="A notification block to tell of failures, such as slack-webhook/ops."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if anything differs.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the datasets' deployments and automations.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make the deployments, schedules and automations of some datasets on the Prefect server; twice changes nothing."""
    if check and remove:
        raise errors.UsageError("--check and --remove: expected at most one of them")
    from sp_data.kept_recipe import recipe_files
    from sp_data.lake import datasets
    from sp_data.recipe import NAMED

    files, present = recipe_files(url), datasets(url)
    recipes = [
        (name, recipe_and_lake(name, None, url, quiet=quiet)[0]) for name in names or files or present or [STOCK]
    ]
    from deployments.deploy import WHAT_TO_START
    from deployments.deploy import deploy as deploy_recipes

    changes = deploy_recipes(
        recipes, (*files, *NAMED, *present), url, every=every, notify=notify, check=check, remove=remove
    )
    differing = [change for change in changes if change.action != "unchanged"]
    if json_:
        rows = [
            {"kind": one.kind, "name": one.name, "action": one.action, "fields": list(one.fields)} for one in changes
        ]
        print_json({"ok": not (check and differing), "changes": rows})
    elif not quiet:
        for change in differing:
            say(str(change) if not check else f"differs: {change}")
        counts = Counter(change.action for change in changes)
        say(", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or "nothing to do")
        if not (check or remove):
            say(WHAT_TO_START)
    if check and differing:
        raise typer.Exit(1)
