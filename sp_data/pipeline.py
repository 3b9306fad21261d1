"""The pipeline: the list of stages, and what there is to know of each before it runs.

    scrape -> curate -> shard -> embed -> reorder -> verify -> prior, decoder -> judge

A stage is a function of the manifests before it, its part of the recipe, and the lake. This module has the list, finds
the manifests and runs a stage; the work is in the stages' own rooms, which are imported when they run.

To add a stage: its folder, its part of the recipe (sp_data/recipe/), and an entry in `PIPELINE`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, WithJsonSchema

from sp_data import manifest as manifests
from sp_data.errors import StageNotDone, UsageError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.recipe.part import RecipePart
from sp_data.runtime.jobs import JobRunner
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import StageResult, StageRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage. Functions are named by their address, 'module:function', and imported when they are called."""

    name: str
    summary: str
    """What it does, in one sentence: the help of its command and the description of its task."""
    version: int
    """Raised when its output changes for equal inputs, which makes what was made before stale."""
    inputs: tuple[str, ...] = ()
    """Stages whose manifests it takes."""
    function: str
    """`(run: StageRun, **options) -> StageResult`."""
    recipe_part: str
    """The field of the recipe that it reads. A recipe in which that is null goes without the stage."""
    group: Literal["dataset", "training"] = "dataset"
    """Whether the dataset's flow runs it, or the fine-tuning flow."""
    command: str = ""
    """The command that runs it alone; empty: its name."""
    uses_network: bool = False
    """Its task is retried: another try may find the network up again."""
    found_unchanged: str = ""
    """`(run: StageRun) -> StageResult | None`: asks outside whether there is anything new; None: there is, or may be. A
    stage without it is unchanged once it is done."""
    is_imported: bool = False
    """`sp-data import` does it in place of the stage."""
    identity_fields: str = ""
    """`(recipe) -> dict`: what of the recipe names the result, where that is not just its part's own fields."""
    folders: tuple[str, ...] = ()
    """Folders of the lake that it fills. `gc` removes from them what no manifest names. `forget` finds the files of one
    picture in FOLDER/ab/ and FOLDER/ANYTHING/ab/, by its sha1 `abcdef…`: `abcdef….png`."""
    leaves_parts: bool = False
    """Each finished shard leaves a part that names its files (manifest.py). `gc` leaves the folders of a stage
    without parts alone while the stage is unfinished."""
    lost_files: str = ""
    """`(lake, manifest) -> list[str]`: files that its tables count on and that are gone. They are too many to be listed
    in the manifest."""
    require_output: str = ""
    """`(lake, manifest) -> None`: raises if what was made is nothing to go on with. The command and the task fail with
    it; the manifest stays, as it has the reasons."""

    def fields_of(self, recipe: Recipe) -> dict[str, Any]:
        """What of the recipe names the result, as plain JSON values."""
        if self.identity_fields:
            fields: dict[str, Any] = _function(self.identity_fields)(recipe)
            return fields
        part: RecipePart = getattr(recipe, self.recipe_part)
        return part.identity_fields()


PIPELINE: tuple[Stage, ...] = (
    Stage(
        name="scrape",
        summary="List the wiki's pictures with their captions and fetch the originals; after the first time, what "
        "changed.",
        version=2,
        function="sp_data.wiki.scrape:scrape",
        recipe_part="source",
        folders=("originals", "catalogue"),
        uses_network=True,
        found_unchanged="sp_data.wiki.scrape:found_unchanged",
        is_imported=True,
        lost_files="sp_data.wiki.originals:originals_missing",
        require_output="sp_data.wiki.publish:require_pictures",
    ),
    Stage(
        name="curate",
        summary="Decide what is kept, in which split, and why the rest is not.",
        version=3,
        inputs=("scrape",),
        function="sp_data.dataset.curate.stage:curate",
        recipe_part="curate",
        folders=("normalised", "curated"),
        is_imported=True,
        lost_files="sp_data.dataset.curate.tables:copies_missing",
    ),
    Stage(
        name="shard",
        summary="Write new pictures into webdataset shards (img2dataset).",
        version=2,
        inputs=("curate",),
        function="sp_data.dataset.shards.stage:shard",
        recipe_part="shard",
        folders=("shards",),
        leaves_parts=True,
        is_imported=True,
    ),
    Stage(
        name="embed",
        summary="Embed the pictures and captions of new shards (clip-retrieval).",
        version=1,
        inputs=("shard",),
        function="sp_data.dataset.embed.stage:embed",
        recipe_part="embed",
        folders=("embeddings",),
        leaves_parts=True,
        identity_fields="sp_data.dataset.embed.folder:identity_fields",
    ),
    Stage(
        name="reorder",
        summary="Put the embeddings in the order of the pictures.",
        version=1,
        inputs=("shard", "embed"),
        function="sp_data.dataset.reorder.stage:reorder",
        recipe_part="reorder",
        folders=("reordered",),
        leaves_parts=True,
    ),
    Stage(
        name="verify",
        summary="Check every joint of the dataset and publish its manifest.",
        version=1,
        inputs=("scrape", "curate", "shard", "embed", "reorder"),
        function="sp_data.dataset.verify.stage:verify",
        recipe_part="verify",
    ),
    Stage(
        name="prior",
        summary="Train the prior on the verified dataset.",
        version=2,
        inputs=("verify",),
        function="sp_data.training.stage:train",
        recipe_part="prior",
        group="training",
        command="train prior",
    ),
    Stage(
        name="decoder",
        summary="Train the decoder on the verified dataset.",
        version=2,
        inputs=("verify",),
        function="sp_data.training.stage:train",
        recipe_part="decoder",
        group="training",
        command="train decoder",
    ),
    Stage(
        name="judge",
        summary="Ask for kids in words and measure the pictures.",
        version=3,
        inputs=("verify", "prior", "decoder"),
        function="sp_data.judge.stage:judge",
        recipe_part="judge",
        group="training",
        identity_fields="sp_data.judge.stage:identity_fields",
    ),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in PIPELINE}
DATASET_STAGES = tuple(stage.name for stage in PIPELINE if stage.group == "dataset")
TRAINING_STAGES = tuple(stage.name for stage in PIPELINE if stage.group == "training")
TRAININGS = tuple(stage.name for stage in PIPELINE if stage.command.startswith("train "))
"""Those that `sp-data train` runs."""


def stage_named(name: str) -> Stage:
    """The stage of this name. Raises UsageError."""
    if name not in STAGES:
        raise UsageError(f"there is no stage {name!r}: expected one of {', '.join(STAGES)}")
    return STAGES[name]


def _one_of(names: tuple[str, ...]) -> Any:
    """A type for flow parameters: the name of one of these stages, which a form offers as a choice."""

    def known(name: str) -> str:
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return Annotated[str, AfterValidator(known), WithJsonSchema({"type": "string", "enum": list(names)})]


StageName = _one_of(tuple(STAGES))
DatasetStage = _one_of(DATASET_STAGES)
TrainingStage = _one_of(TRAINING_STAGES)


def names_until(last: str) -> tuple[str, ...]:
    """The names of the stages from the first to `last`. Raises UsageError."""
    names = tuple(STAGES)
    return names[: names.index(stage_named(last).name) + 1]


def stages_of(recipe: Recipe, until: str | None = None) -> tuple[str, ...]:
    """The stages of a recipe in their order, as far as `until`: only the demo's pictures can be judged."""
    names = names_until(until) if until else tuple(STAGES)
    return tuple(name for name in names if getattr(recipe, STAGES[name].recipe_part) is not None)


# Running


def run_stage(
    name: str,
    recipe: Recipe,
    lake: Lake,
    *,
    progress: Progress = SILENT,
    runner: JobRunner | None = None,
    **options: Any,
) -> StageResult:
    """Run one stage on what the stages before it left.

    `runner`: who does the jobs of curate, reorder and verify; None: threads of this process. `options` are the stage's
    own: `reconcile`, `allow_shrink` and `proxy` of scrape, `leave_out` of shard, `options` of verify (VerifyOptions),
    `resume` of prior and decoder; they are described where the stage is.

    Raises StageNotDone if an earlier stage is missing, stale or damaged, and MadeByNewer if it or an earlier one was
    made by a newer version of sp-data, whose work this one would do again and put in its place.
    """
    stage = stage_named(name)
    standing = stand(recipe, lake, until=name)
    _refuse_newer(standing, lake)
    if recipe.source.imported is not None and stage.is_imported:
        return StageResult(_as_imported(standing[name], lake), "unchanged")
    inputs = {before: _usable(standing[before], lake, for_what=name) for before in stage.inputs}
    run = stage_run(name, recipe, lake, inputs, progress=progress, runner=runner)
    function = _function(stage.function)
    if unknown := options.keys() - inspect.signature(function).parameters.keys():
        raise UsageError(f"stage {name} has no option {min(unknown)!r}")
    result: StageResult = function(run, **options)
    return result


def require_output(name: str, lake: Lake, manifest: Manifest) -> None:
    """Raises NothingCame if a stage made nothing that a later one could go on with."""
    if address := stage_named(name).require_output:
        _function(address)(lake, manifest)


def stage_run(
    name: str,
    recipe: Recipe,
    lake: Lake,
    inputs: Mapping[str, Manifest],
    *,
    progress: Progress = SILENT,
    runner: JobRunner | None = None,
) -> StageRun:
    """The StageRun of a stage for these manifests."""
    stage = stage_named(name)
    return StageRun(name, stage.version, recipe, stage.fields_of(recipe), inputs, lake, progress, runner)


def run_stages(names: Iterable[str], recipe: Recipe, lake: Lake, progress: Progress = SILENT) -> tuple[str, ...]:
    """Run these in their order; gives those that had to work."""
    return tuple(name for name in names if run_stage(name, recipe, lake, progress=progress).state == "done")


def import_work(until: str) -> None:
    """Import what the stages as far as `until` need first, for a caller that has to wait for something else."""
    for name in names_until(until):
        importlib.import_module(STAGES[name].function.partition(":")[0])


def found_unchanged(recipe: Recipe, lake: Lake, until: str, progress: Progress = SILENT) -> list[StageResult] | None:
    """The results of the stages as far as `until`, if none of them has anything to do; else None.

    A wiki is asked once. If it has news, its answers are kept, so that the scrape does not ask again.
    """
    names = stages_of(recipe, until)
    standing = stand(recipe, lake, until=until)
    _refuse_newer(standing, lake)
    if any(standing[name].state != "done" for name in names):
        return None
    results = []
    for name in names:
        manifest = standing[name].manifest
        assert manifest is not None
        stage, result = STAGES[name], StageResult(manifest, "unchanged")
        if stage.found_unchanged and recipe.source.imported is None:
            inputs = {before: _usable(standing[before], lake, for_what=name) for before in stage.inputs}
            found: StageResult | None = _function(stage.found_unchanged)(
                stage_run(name, recipe, lake, inputs, progress=progress)
            )
            if found is None or found.manifest.identity != manifest.identity:
                return None
        results.append(result)
    return results


def _function(address: str) -> Callable[..., Any]:
    """The function at 'module:function'."""
    module, _, name = address.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _as_imported(status: Status, lake: Lake) -> Manifest:
    if status.manifest is None or status.state != "done":
        raise StageNotDone(
            f"dataset {lake.dataset!r} was imported, and its {status.name} is {status.state}{_because(status)}; it "
            "cannot be made here: remove the dataset and run `sp-data import` again"
        )
    return status.manifest


# How the stages stand


@dataclass(frozen=True, slots=True)
class Status:
    """How one stage stands: `stale` was made by another recipe or from other inputs, `damaged` lost a file."""

    name: str
    state: Literal["done", "stale", "damaged", "missing"]
    manifest: Manifest | None
    reason: str = ""


def done_manifest(name: str, recipe: Recipe, lake: Lake, *, for_what: str) -> Manifest:
    """The manifest of a stage that is done, for a caller that is not a stage. Raises StageNotDone."""
    return _usable(stand(recipe, lake, until=name)[name], lake, for_what=for_what)


def _usable(status: Status, lake: Lake, *, for_what: str) -> Manifest:
    # `verify` takes what is damaged too: naming it is its work.
    usable = ("done", "damaged") if for_what == "verify" else ("done",)
    if status.manifest is None or status.state not in usable:
        raise StageNotDone(
            f"{for_what} needs {status.name} of dataset {lake.dataset!r}, which is {status.state}{_because(status)}; "
            f"run {command_for(status.name, lake)} first, or {lake.command('run')} for all stages"
        )
    return status.manifest


def command_for(name: str, lake: Lake) -> str:
    """The command that runs a stage on this dataset alone, as a person types it, in backticks."""
    return lake.command(STAGES[name].command or name)


def _because(status: Status) -> str:
    return f" ({status.reason})" if status.reason else ""


def stand(recipe: Recipe, lake: Lake, until: str | None = None) -> dict[str, Status]:
    """How each stage of the recipe up to `until` stands, in the pipeline's order."""
    standing: dict[str, Status] = {}
    names = names_until(until) if until in STAGES else stages_of(recipe)
    for name in names:
        standing[name] = _stand_of(STAGES[name], recipe, lake, standing)
    return standing


def _stand_of(stage: Stage, recipe: Recipe, lake: Lake, before: dict[str, Status]) -> Status:
    newest = manifests.latest(lake, stage.name)
    if newest is None:
        return Status(stage.name, "missing", None)
    unfit = [name for name in stage.inputs if before[name].state in ("missing", "stale")]
    if unfit:
        return Status(stage.name, "stale", newest, f"{unfit[0]} is {before[unfit[0]].state}")
    if newest.version != stage.version:
        return Status(stage.name, "stale", newest, f"it was made by version {newest.version} of the stage")
    fields = stage.fields_of(recipe)
    if newest.recipe != fields:
        return Status(stage.name, "stale", newest, f"the recipe says {_difference(newest.recipe, fields)}")
    for name in stage.inputs:
        manifest = before[name].manifest
        if manifest is not None and newest.inputs.get(name) != manifest.digest:
            return Status(stage.name, "stale", newest, f"{name} was made again since")
    if missing := manifests.missing_files(lake, newest.files):
        return Status(stage.name, "damaged", newest, f"{lake.full(missing[0][0].path)} {missing[0][1]}")
    if stage.lost_files and (lost := _function(stage.lost_files)(lake, newest)):
        return Status(stage.name, "damaged", newest, f"{lake.full(lost[0])} is missing or cut")
    return Status(stage.name, "done", newest)


def _refuse_newer(standing: Mapping[str, Status], lake: Lake) -> None:
    for name, status in standing.items():
        if status.manifest is not None and status.manifest.version > STAGES[name].version:
            path = f"manifests/{name}/latest.json"
            known = STAGES[name].version
            raise manifests.made_by_newer(
                lake, path, f"version {status.manifest.version} of the stage, here it is {known}"
            )


def is_as_asked(name: str, recipe: Recipe, manifest: Manifest) -> bool:
    """Whether a manifest was made by what this recipe says, and by this version of its stage."""
    return manifest.version == STAGES[name].version and manifest.recipe == STAGES[name].fields_of(recipe)


def as_far_as_before(recipe: Recipe, lake: Lake) -> list[str]:
    """The dataset's stages, from the first, that this recipe made before: what may be run again without a surprise.

    One that is stale only since an input was made again is among them.
    """
    ready: list[str] = []
    for name in DATASET_STAGES:
        newest = manifests.latest(lake, name)
        if newest is None or not is_as_asked(name, recipe, newest):
            break
        ready.append(name)
    return ready


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    field = next(name for name in sorted({*before, *now}) if before.get(name) != now.get(name))
    return f"{field} = {now.get(field)!r}, it was {before.get(field)!r}"
