"""The road: which stages there are, what each reads, and which of its manifests is current.

A stage is a function of the manifests before it, its part of the recipe, and the lake. This module knows the order and
finds the manifests; the work is in the stages' own modules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, get_args

from sp_data import manifest as manifests
from sp_data.errors import CorruptFile, StageNotDone
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Part, Recipe, build
from sp_data.runtime.jobs import Spread
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import VERSION_OF, Effort, StageResult

RECIPE_FILE = "recipe.json"
DatasetStage = Literal["scrape", "curate", "shard", "embed", "reorder", "verify"]
TrainingStage = Literal["prior", "decoder", "judge"]
StageName = Literal[DatasetStage, TrainingStage]
DATASET_STAGES: tuple[DatasetStage, ...] = get_args(DatasetStage)
TRAINING_STAGES: tuple[TrainingStage, ...] = get_args(TrainingStage)
STAGES: tuple[StageName, ...] = (*DATASET_STAGES, *TRAINING_STAGES)
INPUTS: dict[str, tuple[str, ...]] = {
    "scrape": (),
    "curate": ("scrape",),
    "shard": ("curate",),
    "embed": ("shard",),
    "reorder": ("shard", "embed"),
    "verify": ("scrape", "curate", "shard", "embed", "reorder"),
    "prior": ("verify",),
    "decoder": ("verify",),
    "judge": ("verify", "prior", "decoder"),
}

IMPORTED = ("scrape", "curate", "shard")
"""Stages of an imported dataset that were done elsewhere."""


@dataclass(frozen=True, slots=True)
class Status:
    """How one stage stands: `stale` was made by another recipe or from other inputs, `damaged` lost a file."""

    name: str
    state: Literal["done", "stale", "damaged", "missing"]
    manifest: Manifest | None
    reason: str = ""


def stages_of(recipe: Recipe) -> tuple[StageName, ...]:
    """The stages of a recipe's road: the judge can only look at the demo's pictures."""
    return tuple(stage for stage in STAGES if stage != "judge" or recipe.judge is not None)


def is_stage(name: str) -> TypeGuard[StageName]:
    return name in STAGES


def is_dataset_stage(name: str) -> TypeGuard[DatasetStage]:
    return name in DATASET_STAGES


def is_training_stage(name: str) -> TypeGuard[TrainingStage]:
    return name in TRAINING_STAGES


def run_stage(
    name: str,
    recipe: Recipe,
    lake: Lake,
    *,
    progress: Progress = SILENT,
    effort: Effort | None = None,
    resume: str = "latest",
    reconcile: bool = False,
    spread: Spread | None = None,
) -> StageResult:
    """Run one stage on what the stages before it left.

    `effort` is for `verify`: with one it looks again, whatever was verified before. `resume` is for `prior` and
    `decoder`: the checkpoint to go on from. `reconcile` is for `scrape`: list the whole wiki, whatever it says has
    changed. `spread` is for `curate`, `reorder` and `verify`: who does their jobs; None: threads of this process.
    Raises StageNotDone if an earlier stage is missing, stale or damaged.
    """
    standing = stand(recipe, lake, until=name)
    if recipe.source.imported is not None and name in IMPORTED:
        return StageResult(_as_imported(standing[name], lake), "unchanged")
    inputs = {stage: _usable(standing[stage], lake, for_stage=name) for stage in INPUTS[name]}
    # Each stage's libraries are imported when it runs, not with this module.
    if name == "scrape":
        from sp_data.wiki.scrape import scrape

        return scrape(recipe.source, lake, reconcile=reconcile, progress=progress)
    if name == "curate":
        from sp_data.dataset.curate.stage import curate

        return curate(inputs["scrape"], recipe.curate, lake, spread=spread, progress=progress)
    if name == "shard":
        from sp_data.dataset.shards.stage import shard

        return shard(inputs["curate"], recipe.shard, lake, progress=progress)
    if name == "embed":
        from sp_data.dataset.embed.stage import embed

        return embed(inputs["shard"], recipe.embed, lake, progress=progress)
    if name == "reorder":
        from sp_data.dataset.reorder.stage import reorder

        return reorder(inputs["shard"], inputs["embed"], recipe.reorder, lake, spread=spread, progress=progress)
    if name == "verify":
        from sp_data.dataset.verify.stage import verify

        return verify(inputs, recipe, lake, effort=effort, spread=spread, progress=progress)
    if name in ("prior", "decoder"):
        from sp_data.training.stage import train

        return train(name, inputs["verify"], recipe, lake, resume=resume, progress=progress)
    if name == "judge":
        from sp_data.judge.stage import examine

        return examine(inputs["verify"], inputs["prior"], inputs["decoder"], recipe, lake, progress=progress)
    raise ValueError(f"no stage {name!r}: expected one of {', '.join(STAGES)}")


def _as_imported(status: Status, lake: Lake) -> Manifest:
    if status.manifest is None or status.state != "done":
        raise StageNotDone(
            f"dataset {lake.dataset!r} was imported, and its {status.name} is {status.state}{_because(status)}; it "
            "cannot be made here: remove the dataset and run `sp-data import` again"
        )
    return status.manifest


def made(stage: str, recipe: Recipe, lake: Lake, *, for_what: str) -> Manifest:
    """The manifest of a stage that is done, for what is no stage itself. Raises StageNotDone."""
    return _usable(stand(recipe, lake, until=stage)[stage], lake, for_stage=for_what)


def _usable(status: Status, lake: Lake, *, for_stage: str) -> Manifest:
    # `verify` takes what is damaged too: naming it is its work.
    fit = ("done", "damaged") if for_stage == "verify" else ("done",)
    if status.manifest is None or status.state not in fit:
        raise StageNotDone(
            f"{for_stage} needs {status.name} of dataset {lake.dataset!r}, which is {status.state}{_because(status)}; "
            f"run `sp-data {status.name}` first, or `sp-data run` for the whole road"
        )
    return status.manifest


def _because(status: Status) -> str:
    return f" ({status.reason})" if status.reason else ""


def stand(recipe: Recipe, lake: Lake, until: str | None = None) -> dict[str, Status]:
    """How each stage of the recipe up to `until` stands, in the road's order."""
    found: dict[str, Status] = {}
    stages = STAGES[: STAGES.index(until) + 1] if until is not None and is_stage(until) else stages_of(recipe)
    for stage in stages:
        found[stage] = _stand_of(stage, recipe, lake, found)
    return found


def _stand_of(stage: str, recipe: Recipe, lake: Lake, before: dict[str, Status]) -> Status:
    newest = manifests.latest(lake, stage)
    if newest is None:
        return Status(stage, "missing", None)
    unfit = [name for name in INPUTS[stage] if before[name].state in ("missing", "stale")]
    if unfit:
        return Status(stage, "stale", newest, f"{unfit[0]} is {before[unfit[0]].state}")
    if newest.version != VERSION_OF[stage]:
        return Status(stage, "stale", newest, f"it was made by version {newest.version} of the stage")
    part = _part(stage, recipe)
    if newest.recipe != part:
        return Status(stage, "stale", newest, f"the recipe says {_difference(newest.recipe, part)}")
    for name in INPUTS[stage]:
        manifest = before[name].manifest
        if manifest is not None and newest.inputs.get(name) != manifest.digest:
            return Status(stage, "stale", newest, f"{name} was made again since")
    if missing := manifests.missing_files(lake, newest.files):
        return Status(stage, "damaged", newest, f"{lake.full(missing[0][0].path)} {missing[0][1]}")
    if lost := _pictures_lost(stage, newest, lake):
        return Status(stage, "damaged", newest, f"{lake.full(lost[0])} is missing or cut")
    return Status(stage, "done", newest)


def is_as_asked(stage: str, recipe: Recipe, manifest: Manifest) -> bool:
    """Whether a manifest was made by what this recipe says, and by this version of its stage."""
    return manifest.version == VERSION_OF[stage] and manifest.recipe == _part(stage, recipe)


def as_far_as_before(recipe: Recipe, lake: Lake) -> list[str]:
    """The dataset's stages, from the first, that this recipe made before: what may be run again without a surprise.

    One that is stale only since an input was made again is among them.
    """
    ready: list[str] = []
    for stage in DATASET_STAGES:
        newest = manifests.latest(lake, stage)
        if newest is None or not is_as_asked(stage, recipe, newest):
            break
        ready.append(stage)
    return ready


def run_stages(stages: Iterable[str], recipe: Recipe, lake: Lake, progress: Progress = SILENT) -> tuple[str, ...]:
    """Run these in their order; gives those that had to work."""
    return tuple(stage for stage in stages if run_stage(stage, recipe, lake, progress=progress).state == "done")


def _pictures_lost(stage: str, manifest: Manifest, lake: Lake) -> list[str]:
    """Pictures that a stage's table counts on and that are gone. They are too many to be listed in the manifest."""
    if stage == "scrape" and manifest.recipe.get("imported") is None:
        from sp_data.wiki.originals import originals_missing

        return originals_missing(lake, manifest)
    if stage == "curate":
        from sp_data.dataset.curate.tables import copies_missing

        return copies_missing(lake, manifest)
    return []


def _part(stage: str, recipe: Recipe) -> dict[str, Any]:
    """What a stage reads of the recipe. The stages' own modules are imported for those that need them only."""
    if stage == "embed":
        from sp_data.dataset.embed.stage import recipe_part

        return recipe_part(recipe.embed)
    if stage == "judge":
        from sp_data.judge import stage as exam

        return exam.recipe_part(recipe)
    part: Part = recipe.source if stage == "scrape" else getattr(recipe, stage)
    return part.what()


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    field = next(name for name in sorted({*was, *now}) if was.get(name) != now.get(name))
    return f"{field} = {now.get(field)!r}, it was {was.get(field)!r}"


def remember_recipe(recipe: Recipe, lake: Lake) -> None:
    """Keep the recipe beside its dataset, so that later commands need not be told it again."""
    data = recipe.model_dump_json(indent=1).encode() + b"\n"
    if not lake.exists(RECIPE_FILE) or lake.read_bytes(RECIPE_FILE) != data:
        with lake.writer("recipe"):
            lake.write_bytes(RECIPE_FILE, data)


def recall_recipe(lake: Lake) -> Recipe | None:
    """The recipe that a dataset was last made with, None if there is no such dataset. Raises RecipeError."""
    if not lake.exists(RECIPE_FILE):
        return None
    try:
        fields = json.loads(lake.read_bytes(RECIPE_FILE))
    except ValueError as error:
        raise CorruptFile(f"{lake.full(RECIPE_FILE)} is no recipe ({error}); run the dataset once more") from error
    return build(fields, lake.full(RECIPE_FILE))
