"""The command that runs the whole pipeline: as a Prefect flow run, or without Prefect where there is nothing to do."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sp_data import errors
from sp_data.cli.options import DEFAULT_LAKE, STOCK, JsonOption, LakeOption, QuietOption, RecipeArgument, SetOption
from sp_data.cli.output import path_to_open, print_json, say
from sp_data.cli.pipeline import AllowShrinkOption, stage_line
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.lake import Lake
    from sp_data.recipe import Recipe

log = logging.getLogger(__name__)

commands = typer.Typer()
JSON_STAGE_FIELDS = {"name", "in_", "out", "dropped", "seconds", "state"}


@commands.command()
def run(
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="The last stage to run; default: all of them.")
    ] = None,
    allow_shrink: AllowShrinkOption = False,
    no_prefect: Annotated[
        bool, typer.Option("--no-prefect", help="Run the same stages without Prefect: no server, no artifacts.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Run the whole pipeline as a Prefect flow run; where nothing changed, say so without starting Prefect."""
    from sp_data.pipeline import STAGES

    last = until or list(STAGES)[-1]
    if last not in STAGES:
        raise errors.UsageError(f"--until {until}: expected one of {', '.join(STAGES)}")
    recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK, loads_clip=True)
    begun = time.monotonic()
    from sp_data.cli.terminal import shown, stage_table

    with shown(quiet=quiet):
        _say_what_is_trained_again(lake, last)
        result = _without_prefect(recipe, lake, last, allow_shrink, is_asked_for=no_prefect)
        if result is None:
            result = _as_flow_run(recipe, lake, last, allow_shrink)
    seconds = round(time.monotonic() - begun, 1)
    report = path_to_open(lake, result.report)
    judged = _judged(lake, {stage.name: stage.identity for stage in result.stages})
    if json_:
        stages = [stage.fields for stage in result.stages]
        print_json({"seconds": seconds, "dataset": recipe.name, "report": report, "stages": stages, "judge": judged})
    elif not quiet:
        stage_table([stage.fields for stage in result.stages])
        unchanged = all(stage.state == "unchanged" for stage in result.stages)
        if judged:
            say(_judge_sentence(judged))
        how = " (Prefect was not started)" if result.is_without_prefect else ""
        say(f"{recipe.name}: {'unchanged' if unchanged else 'done'} in {seconds} s{how}")
        if "decoder" in {stage.name for stage in result.stages}:
            say(f"draw: {_as_typed(lake.command('ui'))}")
        say(f"report: {report}")


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage of a run, as the table and `--json` show it."""

    name: str
    state: str
    identity: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    stages: list[_Stage]
    report: str
    """Path in the lake."""
    is_without_prefect: bool


def _without_prefect(recipe: Recipe, lake: Lake, last: str, allow_shrink: bool, *, is_asked_for: bool) -> _Run | None:
    """The run as library calls: if it is asked for, or if no stage has anything to do; else None."""
    from sp_data.kept_recipe import remember_recipe, remembered
    from sp_data.pipeline import found_unchanged, require_output, run_stage, stages_of
    from sp_data.report.page import load_manifests, write_report
    from sp_data.runtime.progress import onlooker

    stages = []
    if not is_asked_for:
        # With --allow-shrink a change is expected, which a look without it would refuse.
        results = None if allow_shrink else found_unchanged(recipe, lake, last)
        if results is None:
            return None
        remember_recipe(recipe, lake)
        stages = [(result, 0.0) for result in results]
    else:
        with remembered(recipe, lake):
            for name in stages_of(recipe, last):
                begun = time.monotonic()
                options: dict[str, Any] = {"allow_shrink": allow_shrink} if name == "scrape" else {}
                result = run_stage(name, recipe, lake, progress=onlooker(), **options)
                require_output(name, lake, result.manifest)
                stages.append((result, time.monotonic() - begun))
    manifests = [(result.manifest, result.state, seconds) for result, seconds in stages]
    return _Run(
        [
            _Stage(
                manifest.stage, state, manifest.identity, stage_line(manifest.stage, manifest.counts, state, seconds)
            )
            for manifest, state, seconds in manifests
        ],
        write_report(recipe, lake, load_manifests(lake, tuple(manifest.stage for manifest, _, _ in manifests))),
        is_without_prefect=True,
    )


def _as_flow_run(recipe: Recipe, lake: Lake, last: str, allow_shrink: bool) -> _Run:
    """The run as a Prefect flow run, on the server that the settings name or on one of its own."""
    from sp_data.kept_recipe import remembered
    from sp_data.pipeline import import_work

    for package in ("flows", "tasks"):
        if not _is_ours(package):
            raise errors.StageError(
                f"another package named {package!r} hides sp-data's own; take its folder out of PYTHONPATH, start "
                "sp-data by its command `sp-data`, or install it into an environment of its own"
            )
    # The terminal shows our bars or lines; Prefect's own go to its server. Set before Prefect is imported.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.local_server import starting_local_server, tagged

    with starting_local_server():
        from flows.pipeline import pipeline

        import_work(last)
    with remembered(recipe, lake), tagged(recipe.name):
        result = pipeline(recipe=recipe.name, lake=lake.url, until=last, allow_shrink=allow_shrink)
    stages = [
        _Stage(stage.name, stage.state, stage.identity, stage.model_dump(by_alias=True, include=JSON_STAGE_FIELDS))
        for stage in result.stages
    ]
    return _Run(stages, result.report, is_without_prefect=False)


def _as_typed(command: str) -> str:
    """A command as it can be typed here: the environment's own, where none is on the path."""
    command = command.strip("`")
    own = Path(sys.argv[0])
    if shutil.which("sp-data") or own.name != "sp-data":
        return command
    here = Path.cwd()
    return command.replace("sp-data", str(own.relative_to(here) if own.is_relative_to(here) else own), 1)


def _say_what_is_trained_again(lake: Lake, last: str) -> None:
    """Name the trainings, as far as the stage `last`, that are repeated because their pictures were forgotten."""
    from sp_data.pipeline import names_until
    from sp_data.runtime.progress import SHOWN
    from sp_data.training.seen import saw_forgotten

    for model in saw_forgotten(lake):
        if model.is_in_use and model.is_repeated and model.stage in names_until(last):
            log.info("%s: trained again: %s saw %s", model.network, model.checkpoint, model.pictures, extra=SHOWN)


def _is_ours(package: str) -> bool:
    """Whether a package of this name is the one that came with sp-data, and not another one that hides it."""
    from importlib.util import find_spec

    import sp_data

    spec = find_spec(package)
    home = Path(sp_data.__file__).parent.parent
    return spec is not None and spec.origin is not None and Path(spec.origin).parent == home / package


def _judged(lake: Lake, identities: dict[str, str]) -> dict[str, Any] | None:
    """What the judge of a run found, None where it had none."""
    from sp_data import manifest as manifests

    manifest = manifests.load(lake, "judge", identities["judge"]) if "judge" in identities else None
    if manifest is None:
        return None
    score = manifest.details["table"]["all"]
    return {"n": score["n"], "coat": score["coat"], "hat": score["hat"], "chance": manifest.details["chance"]}


def _judge_sentence(judged: dict[str, Any]) -> str:
    return (
        f"judge: of {judged['n']} pictures made from words, {judged['coat']:.0%} have the right coat and "
        f"{judged['hat']:.0%} the right hat (chance {judged['chance']:.1%})"
    )
