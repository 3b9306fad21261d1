"""The compaction of the shards as a Prefect task."""

from __future__ import annotations

import time

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.runtime.progress import onlooker
from sp_data.upkeep.compact import compact_shards
from tasks.reference import StageReference
from tasks.stage import publish_artifact, reference_to


@task(cache_policy=NO_CACHE)
def compact(recipe: Recipe, lake: str) -> StageReference:
    """Put the pictures of half-dead, forgotten or tiny shards into new, full ones."""
    dataset_lake, started = Lake(lake, recipe.name), time.monotonic()
    compacted = compact_shards(recipe, dataset_lake, progress=onlooker())
    publish_artifact(dataset_lake, compacted.manifest, compacted.state)
    return reference_to(compacted.manifest, compacted.state, time.monotonic() - started)
