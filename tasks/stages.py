"""The stages of a run as its flow calls them: one writer a dataset, one visitor a wiki, one training a machine."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable, Iterator, Sequence

from sp_data import manifest as manifests
from sp_data.errors import WikiUnreachable
from sp_data.kept_recipe import remembered
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, STAGES, found_unchanged, require_output, stages_of
from sp_data.recipe import Recipe
from sp_data.training.dataset_change import DatasetChange, change_between
from tasks.limits import one_at_a_time, wiki_host
from tasks.ray_jobs import running_jobs
from tasks.reference import StageReference
from tasks.stage import reference_to, stage_task

log = logging.getLogger("sp_data.tasks")


def run_dataset_stages(
    recipe: Recipe, lake: str, until: str, *, allow_shrink: bool = False
) -> tuple[list[StageReference], DatasetChange | None]:
    """Run the dataset's stages as far as `until`. Gives them, and what came and went; None: it is as it was.

    Where nothing changed, no task is run: a schedule's idle runs would fill the server's database with them. The recipe
    is kept with the dataset, unless it is refused.
    """
    dataset_lake = Lake(lake, recipe.name)
    names = tuple(_names(recipe, until, in_dataset=True))
    with (
        one_at_a_time("dataset", recipe.name),
        remembered(recipe, dataset_lake),
        running_jobs(recipe.machines),
    ):
        if not allow_shrink and (unchanged := _found_unchanged(recipe, dataset_lake, names)):
            return unchanged, None
        before = manifests.latest(dataset_lake, "verify")
        scraping = {"allow_shrink": allow_shrink}
        done = [run_stage_task(name, recipe, lake, scraping if name == "scrape" else None) for name in names]
    now = manifests.latest(dataset_lake, "verify")
    is_new = now is not None and (before is None or now.digest != before.digest)
    return done, change_between(dataset_lake, before, now) if now is not None and is_new else None


def run_training_stages(
    recipe: Recipe, lake: str, until: str, *, only: str | None = None
) -> list[StageReference] | None:
    """Run the trainings and what follows them as far as `until`, one of this dataset and on this machine at a time.

    `only`: the digest of the dataset that may be trained on; None is returned if it is another one by now. What was
    trained before that stays. The recipe is kept with the dataset, unless it is refused.
    """
    dataset_lake, done = Lake(lake, recipe.name), []
    with (
        one_at_a_time("trainings", recipe.name),
        one_at_a_time("training", socket.gethostname()),
        remembered(recipe, dataset_lake),
    ):
        for name in _names(recipe, until, in_dataset=False):
            # A run that is writing the dataset is waited for: between its scrape and its verify nothing fits.
            with one_at_a_time("dataset", recipe.name):
                verified = manifests.latest(dataset_lake, "verify")
            if only is not None and (verified is None or verified.digest != only):
                return None
            done.append(run_stage_task(name, recipe, lake))
    return done


def _found_unchanged(recipe: Recipe, lake: Lake, names: Sequence[str]) -> list[StageReference] | None:
    """References to these stages, if the source has nothing new and they are all done; else None."""
    try:
        with _visit(names[0], recipe):
            results = found_unchanged(recipe, lake, names[-1])
    except WikiUnreachable as error:
        # The task of the scrape tries again.
        log.info("%s", error)
        return None
    if results is None:
        return None
    for name, result in zip(names, results, strict=True):
        require_output(name, lake, result.manifest)
    log.info("%s: nothing changed, %s", recipe.name, ", ".join(names))
    return [reference_to(result.manifest, result.state, 0.0) for result in results]


def _names(recipe: Recipe, until: str, *, in_dataset: bool) -> Iterable[str]:
    return (name for name in stages_of(recipe, until) if (name in DATASET_STAGES) is in_dataset)


def run_stage_task(name: str, recipe: Recipe, lake: str, options: dict[str, bool] | None = None) -> StageReference:
    """Run one stage, with options of its own, as a task that is named by the stage and the dataset."""
    with _visit(name, recipe):
        return stage_task(name).with_options(name=f"{name} {recipe.name}", task_run_name=f"{name} {recipe.name}")(
            recipe, lake, options
        )


@contextlib.contextmanager
def _visit(name: str, recipe: Recipe) -> Iterator[None]:
    """A stage that asks a wiki waits until no other run asks that host."""
    if not STAGES[name].uses_network or recipe.source.demo is not None:
        yield
        return
    with one_at_a_time("wiki", wiki_host(recipe)):
        yield
