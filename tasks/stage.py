"""What every stage task does: call one library function, publish one artifact, return a small reference.

No Prefect cache: it trusts a path, not the bytes behind it. The library's manifest decides what is done.
"""

from __future__ import annotations

import re
import time

from prefect.artifacts import create_markdown_artifact

from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import remember_recipe, run_stage
from sp_data.recipe import Recipe
from sp_data.report.markdown import stage_markdown
from sp_data.runtime.progress import Progress, onlooker
from sp_data.stage import State
from tasks.reference import StageReference
from tasks.spread import current_spread


def run_and_publish(name: str, recipe: Recipe, lake_url: str, progress: Progress | None = None) -> StageReference:
    """Run one stage, show it in the Prefect UI, and say what came out. `progress`: who looks on, if not the usual."""
    lake = Lake(lake_url, recipe.name)
    begun = time.monotonic()
    remember_recipe(recipe, lake)
    result = run_stage(name, recipe, lake, progress=progress or onlooker(), spread=current_spread())
    seconds = time.monotonic() - begun
    publish_artifact(lake, result.manifest, result.state)
    return reference_to(result.manifest, result.state, seconds)


def reference_to(manifest: Manifest, state: State, seconds: float) -> StageReference:
    """A small reference to what a stage made, or left as it was."""
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


def artifact_key(dataset: str, what: str) -> str:
    """Prefect takes small letters, digits and dashes only: 'My_wiki.2' and 'embed' -> 'my-wiki-2-embed'."""
    return re.sub(r"[^a-z0-9]+", "-", f"{dataset}-{what}".lower())


def publish_artifact(lake: Lake, manifest: Manifest, state: str) -> None:
    """A markdown artifact with the counts, a contact sheet, and the lineage."""
    create_markdown_artifact(
        key=artifact_key(lake.dataset, manifest.stage),
        markdown=stage_markdown(lake, manifest, state),
        description=f"{manifest.stage} of {lake.dataset}: {manifest.counts.out:,} of {manifest.counts.in_:,}",
    )
