"""Commands that run the pipeline, whole or a stage at a time, and say how it stands."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sp_data import errors
from sp_data.cli.options import (
    DEFAULT_LAKE,
    STOCK,
    DatasetArgument,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipeArgument,
    RecipeOption,
    SetOption,
)
from sp_data.cli.output import path_to_open, print_json, say
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.manifest import Counts
    from sp_data.recipe import Recipe

log = logging.getLogger(__name__)

commands = typer.Typer()
AllowShrinkOption = Annotated[
    bool,
    typer.Option("--allow-shrink", help="Take it as meant that the wiki or the list lost most of its pictures."),
]


def stage_line(name: str, counts: Counts, state: str, seconds: float) -> dict[str, Any]:
    """One stage of a run, as the table and `--json` show it."""
    return {
        "name": name,
        "in": counts.in_,
        "out": counts.out,
        "dropped": counts.num_dropped,
        "seconds": round(seconds, 1),
        "state": state,
    }


def run_one_stage(name: str, recipe: Recipe, lake: Lake, *, quiet: bool, json_: bool, **options: Any) -> None:
    """Run one stage without Prefect and print its line."""
    from sp_data.cli.terminal import shown, stage_table
    from sp_data.kept_recipe import remembered
    from sp_data.pipeline import require_output, run_stage
    from sp_data.runtime.progress import onlooker

    begun = time.monotonic()
    with shown(quiet=quiet), remembered(recipe, lake):
        result = run_stage(name, recipe, lake, progress=onlooker(), **options)
    require_output(name, lake, result.manifest)
    line = stage_line(name, result.manifest.counts, result.state, time.monotonic() - begun)
    if json_:
        print_json({"dataset": recipe.name, "stages": [line]})
    elif not quiet:
        stage_table([line])


@commands.command()
def scrape(
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched and how long it takes; fetch no picture.")
    ] = False,
    reconcile: Annotated[
        bool,
        typer.Option(
            "--reconcile",
            help="List the whole wiki, not only what changed; ask again for every picture that did not come.",
        ),
    ] = False,
    allow_shrink: AllowShrinkOption = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """List the wiki's pictures with their captions and fetch the originals; after the first time, what changed."""
    recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=not dry_run, default=STOCK)
    if dry_run:
        _plan_scrape(recipe, lake, reconcile=reconcile, allow_shrink=allow_shrink, quiet=quiet, json_=json_)
    else:
        run_one_stage("scrape", recipe, lake, quiet=quiet, json_=json_, reconcile=reconcile, allow_shrink=allow_shrink)


def _plan_scrape(recipe: Recipe, lake: Lake, *, reconcile: bool, allow_shrink: bool, quiet: bool, json_: bool) -> None:
    from sp_data import manifest as manifests
    from sp_data.cli.terminal import duration, shown
    from sp_data.runtime.progress import onlooker
    from sp_data.wiki.publish import shrinkage
    from sp_data.wiki.scrape import plan

    with shown(quiet=quiet):
        planned = plan(recipe.source, lake, reconcile=reconcile, progress=onlooker())
    shrank = shrinkage(recipe.source, manifests.latest(lake, "scrape"), lake, planned.num_hopeful)
    if shrank and not allow_shrink:
        say(f"sp-data: {shrank}: the scrape will refuse that without --allow-shrink", err=True)
    if json_:
        print_json({"dataset": recipe.name, **asdict(planned)})
        return
    rate = recipe.source.requests_per_second
    pace = f" at {rate:g} requests a second" if rate else ""
    size = "" if planned.num_bytes is None else f" ({planned.num_bytes / 1e6:,.1f} MB)"
    say(
        f"{recipe.name}: {planned.num_files:,} files, {planned.num_pictures:,} pictures to fetch{size}: "
        f"about {duration(planned.seconds)}{pace}"
    )
    say(f"requests made to know that: {planned.num_requests}; the answers are kept for the run, no picture was fetched")


def _add_stage_command(stage: str, summary: str) -> None:
    """The command of a stage that has no options of its own."""

    @commands.command(stage, help=summary)
    def command(
        name: RecipeArgument = None,
        sets: SetOption = None,
        url: LakeOption = DEFAULT_LAKE,
        quiet: QuietOption = False,
        json_: JsonOption = False,
    ) -> None:
        loads_clip = stage == "embed"
        recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK, loads_clip=loads_clip)
        run_one_stage(stage, recipe, lake, quiet=quiet, json_=json_)


@commands.command()
def reorder(
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    embeddings: Annotated[
        Path | None, typer.Option(help="Stand-alone: folder with img_emb_N.npy, or with img_emb/ and text_emb/.")
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="Stand-alone: folder with metadata_N.parquet.")] = None,
    output: Annotated[Path | None, typer.Option(help="Stand-alone: folder for img_emb/ and text_emb/.")] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="S+I", help="Stand-alone: digits of a key for shard and index, e.g. 5+4.")
    ] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Stand-alone: img2dataset's folder, which proves layout and sizes.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Put the embeddings in the order of the pictures, of a dataset or of any clip-retrieval output."""
    given = {"--embeddings": embeddings, "--metadata": metadata, "--output": output}
    if not any(given.values()):
        if layout or shards:
            raise errors.UsageError(
                f"{'--layout' if layout else '--shards'} is for --embeddings; a dataset's own layout comes from its "
                "shard manifest"
            )
        recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK)
        run_one_stage("reorder", recipe, lake, quiet=quiet, json_=json_)
        return
    if name or sets:
        raise errors.UsageError("--embeddings reorders a folder without a lake: it takes neither RECIPE nor --set")
    if embeddings is None or metadata is None or output is None:
        lacking = next(name for name, value in given.items() if value is None)
        raise errors.UsageError(f"{lacking} is missing: --embeddings, --metadata and --output belong together")
    from sp_data.cli.terminal import shown
    from sp_data.dataset.reorder import reorder_folder
    from sp_data.keys import KeyLayout
    from sp_data.runtime.progress import onlooker

    key_layout = KeyLayout.parse(layout) if layout else None
    with shown(quiet=quiet):
        reordered = reorder_folder(embeddings, metadata, output, key_layout, shards=shards, progress=onlooker())
    if json_:
        print_json(
            {
                "layout": str(reordered.layout),
                "kinds": list(reordered.kinds),
                "shards": reordered.num_shards,
                "rows": reordered.num_rows,
                "zero_rows": reordered.num_zero_rows,
                "unchanged": reordered.num_unchanged,
            }
        )
    elif not quiet:
        say(
            f"reordered {reordered.num_rows:,} rows into {reordered.num_shards:,} shards "
            f"({', '.join(reordered.kinds)}), layout {reordered.layout}, {reordered.num_zero_rows:,} rows zero: "
            f"{output}"
        )


@commands.command()
def verify(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and embed every picture again.")] = False,
    reembed: Annotated[int | None, typer.Option(min=0, help="How many pictures to embed again.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Check every joint of the dataset; exit 1 with the first that is wrong."""
    from sp_data.cli.terminal import shown
    from sp_data.dataset.verify import VerifyOptions
    from sp_data.kept_recipe import remembered
    from sp_data.pipeline import run_stage
    from sp_data.runtime.progress import onlooker

    recipe, lake = recipe_and_lake(name or name_option, sets, url, quiet=quiet, keeps=True, loads_clip=True)
    try:
        with shown(quiet=quiet), remembered(recipe, lake):
            result = run_stage("verify", recipe, lake, progress=onlooker(), options=VerifyOptions(deep, reembed))
    except errors.VerifyFailed as failed:
        if not json_:
            raise
        problems = [asdict(problem) for problem in failed.problems]
        print_json({"ok": False, "checked": failed.num_checked, "problems": problems})
        raise typer.Exit(1) from failed
    checked = result.manifest.counts.out
    if json_:
        print_json({"ok": True, "checked": checked, "problems": []})
    elif not quiet:
        say(f"{recipe.name}: {checked:,} samples checked, no problem")


@commands.command()
def train(
    model: Annotated[str, typer.Argument(metavar="prior|decoder", help="What to train.")],
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    resume: Annotated[
        str, typer.Option(metavar="latest|PATH", help="The checkpoint to go on from; latest: this run's own, if any.")
    ] = "latest",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Train on the verified dataset; a run that was killed goes on from its last checkpoint."""
    from sp_data.pipeline import TRAININGS

    if model not in TRAININGS:
        raise errors.UsageError(f"train {model}: expected {' or '.join(TRAININGS)}")
    recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK, loads_clip=True)
    run_one_stage(model, recipe, lake, quiet=quiet, json_=json_, resume=resume)


@commands.command()
def report(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    url: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write the page: what was kept and dropped, how training went, what the models draw."""
    from sp_data.cli.terminal import shown
    from sp_data.pipeline import STAGES
    from sp_data.report.page import load_manifests, write_report

    recipe, lake = recipe_and_lake(name or name_option, None, url, quiet=quiet)
    manifests = load_manifests(lake, tuple(STAGES))
    if not manifests:
        raise errors.StageNotDone(f"dataset {recipe.name!r} has no manifest yet; run {lake.command('run')} first")
    with shown(quiet=quiet or json_):
        path = path_to_open(lake, write_report(recipe, lake, manifests))
    if json_:
        print_json({"dataset": recipe.name, "report": path})
    else:
        say(path)


@commands.command()
def status(
    name: DatasetArgument = None,
    name_option: RecipeOption = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Every dataset of the lake in a line: age, pictures, training, size, what is due."),
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Say what is done, stale, damaged or missing, with sizes, and which models saw pictures forgotten since."""
    if all_:
        if name or name_option or sets:
            raise errors.UsageError("--all is of every dataset: it takes neither a name nor --set")
        _show_all(url, json_=json_)
        return
    from sp_data.cli.terminal import status_table
    from sp_data.pipeline import stand
    from sp_data.training.seen import saw_forgotten

    recipe, lake = recipe_and_lake(name or name_option, sets, url, quiet=quiet)
    standing = stand(recipe, lake).values()
    rows = [
        {
            "name": stage.name,
            "state": stage.state,
            "digest": stage.manifest.digest if stage.manifest else None,
            "made_at": stage.manifest.made_at if stage.manifest else None,
            "bytes": stage.manifest.num_bytes if stage.manifest else None,
        }
        for stage in standing
    ]
    saw = saw_forgotten(lake)
    if json_:
        print_json({"stages": rows, "saw_forgotten": [model.as_json() for model in saw]})
    else:
        say(recipe.name)
        status_table([{**row, "reason": stage.reason} for row, stage in zip(rows, standing, strict=True)])
        for model in saw:
            say(model.line(lake))


def _show_all(url: str, *, json_: bool) -> None:
    from sp_data.cli.terminal import overview_table
    from sp_data.upkeep.overview import overview

    rows = overview(url, datetime.now(UTC))
    if json_:
        print_json({"datasets": [row.as_json() for row in rows]})
    elif rows:
        overview_table(rows)
    else:
        say(f"lake {url} holds no dataset")


def add_stage_commands() -> None:
    """`curate`, `shard`, `embed`, …: a command for each stage that has none of its own, in their order.

    Called when the command runs, not when this module is imported: the list of stages takes longer to import.
    """
    from sp_data.pipeline import PIPELINE, TRAININGS

    names = [_name_of(command) for command in commands.registered_commands]
    for stage in PIPELINE:
        if stage.name not in (*names, *TRAININGS, "judge"):
            _add_stage_command(stage.name, stage.summary)
    order = {name: place for place, name in enumerate(("run", *(stage.name for stage in PIPELINE)))}
    commands.registered_commands.sort(key=lambda command: order.get(_name_of(command), len(order)))


def _name_of(command: typer.models.CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))
