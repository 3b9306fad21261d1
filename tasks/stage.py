"""The Prefect task of a stage: run it, show it in the Prefect UI, and return a reference to its manifest.

Tasks are called directly, not submitted: a cancellation reaches only the main thread, which then ends a training's
process group.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from functools import cache
from typing import Any

from prefect import Task, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import STAGES, require_output, run_stage
from sp_data.recipe import Recipe
from sp_data.report.markdown import stage_markdown
from sp_data.runtime.progress import onlooker
from sp_data.stage import State
from tasks.progress import ProgressArtifact
from tasks.ray_jobs import current_runner
from tasks.reference import StageReference
from tasks.retries import NEVER, ON_NETWORK_ERRORS

log = logging.getLogger("sp_data.tasks")


@cache
def stage_task(name: str) -> Task[..., StageReference]:
    """The task that runs the stage of this name: `(recipe, lake, options)`, options as `run_stage` takes them."""
    stage = STAGES[name]
    retries = ON_NETWORK_ERRORS if stage.uses_network else NEVER

    # The manifest decides what is done; Prefect's cache would compare paths, not bytes.
    @task(name=name, description=stage.summary, cache_policy=NO_CACHE, **retries)
    def run(recipe: Recipe, lake: str, options: dict[str, Any] | None = None) -> StageReference:
        return run_and_publish(name, recipe, lake, options)

    return run


def run_and_publish(name: str, recipe: Recipe, lake_url: str, options: dict[str, Any] | None = None) -> StageReference:
    """Run one stage with a progress bar in the Prefect UI, show what it made there, and return a reference to it."""
    lake = Lake(lake_url, recipe.name)
    started = time.monotonic()
    progress = ProgressArtifact(artifact_key(recipe.name, f"{name}-progress"), onlooker())
    remember_recipe(recipe, lake)
    result = run_stage(name, recipe, lake, progress=progress, runner=current_runner(), **(options or {}))
    seconds = time.monotonic() - started
    if result.state == "done":
        # What did not change was shown by the run that made it; a copy each week would fill the server's database.
        publish_artifact(lake, result.manifest, result.state)
    require_output(name, lake, result.manifest)
    counts = result.manifest.counts
    log.info("%s: %s, %s of %s, %.1f s", name, result.state, f"{counts.out:,}", f"{counts.in_:,}", seconds)
    return reference_to(result.manifest, result.state, seconds)


def reference_to(manifest: Manifest, state: State, seconds: float) -> StageReference:
    """A small reference to a stage's manifest."""
    return StageReference(
        name=manifest.stage,
        state=state,
        in_=manifest.counts.in_,
        out=manifest.counts.out,
        dropped=manifest.counts.num_dropped,
        seconds=round(seconds, 1),
        identity=manifest.identity,
        digest=manifest.digest,
    )


def artifact_key(dataset: str, content: str) -> str:
    """A key of small letters, digits and dashes, as Prefect requires: 'southpark' and 'embed' -> 'southpark-embed'.

    'My_wiki' -> 'my-wiki-da64cec6-embed': a name with other signs has its digest behind it, because 'my.wiki' and
    'my-wiki', two datasets, would otherwise show each other's artifacts.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", dataset):
        slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower())
        dataset = f"{slug}-{hashlib.sha256(dataset.encode()).hexdigest()[:8]}".replace("--", "-").strip("-")
    return f"{dataset}-{content}"


def publish_artifact(lake: Lake, manifest: Manifest, state: str) -> None:
    """Show a stage in the Prefect UI: a markdown artifact with its counts, a contact sheet, and its lineage."""
    create_markdown_artifact(
        key=artifact_key(lake.dataset, manifest.stage),
        markdown=stage_markdown(lake, manifest, state),
        description=f"{manifest.stage} of {lake.dataset}: {manifest.counts.out:,} of {manifest.counts.in_:,}",
    )
