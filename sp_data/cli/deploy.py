"""The command that makes deployments, schedules and automations on a Prefect server."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from sp_data import errors
from sp_data.cli.options import DEFAULT_LAKE, STOCK, JsonOption, LakeOption, QuietOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.recipe import Recipe

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
        str | None,
        typer.Option(
            metavar="CRON",
            help="When to scrape again, in UTC; default: as it is, which is Mondays at four (0 4 * * 1) at first. "
            "The demo has no schedule.",
        ),
    ] = None,
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

    files = recipe_files(url)
    chosen = names or files or datasets(url) or [STOCK]
    nothing = "nothing to do"
    if remove:
        gone = [_dataset_to_remove(name, url, quiet=quiet) for name in chosen]
        from deployments.deploy import remove as remove_datasets

        changes, nothing = remove_datasets(gone), f"nothing to do: the server has nothing of {', '.join(gone)}"
    else:
        recipes = [_recipe_of_runs(name, url, quiet=quiet) for name in chosen]
        from deployments.deploy import deploy as deploy_recipes

        changes = deploy_recipes(recipes, (*files, *NAMED), url, every=every, notify=notify, check=check)
    differing = [change for change in changes if change.action != "unchanged"]
    if json_:
        rows = [
            {"kind": change.kind, "name": change.name, "action": change.action, "fields": list(change.fields)}
            for change in changes
        ]
        print_json({"ok": not (check and differing), "changes": rows})
    elif not quiet:
        for change in differing:
            say(change.as_difference() if check else str(change))
        counts = Counter(change.difference if check else change.action for change in changes)
        say(", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or nothing)
        if not (check or remove):
            from deployments.deploy import WHAT_TO_START

            for line in WHAT_TO_START:
                say(line)
    if check and differing:
        raise typer.Exit(1)


def _recipe_of_runs(name: str, url: str, *, quiet: bool) -> tuple[str, Recipe]:
    """A recipe, and the name by which a deployment's runs will find that very recipe.

    Raises UsageError if they would find none or another one, RecipeError, CorruptFile.
    """
    from sp_data.kept_recipe import file_of_runs
    from sp_data.recipe.load import named_in_file

    recipe, _ = recipe_and_lake(name, None, url, quiet=quiet)
    return file_of_runs(name, url) if named_in_file(name) else name, recipe


def _dataset_to_remove(name: str, url: str, *, quiet: bool) -> str:
    """The dataset that a name means. Neither its recipe nor its folder need be there any more, if it is its own name.

    Raises UsageError, RecipeError if a recipe file cannot be read.
    """
    from sp_data.lake import is_dataset_name
    from sp_data.recipe.load import named_in_file

    if is_dataset_name(name) and not named_in_file(name):
        return name
    return recipe_and_lake(name, None, url, quiet=quiet)[0].name
