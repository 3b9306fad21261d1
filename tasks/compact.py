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
    """Put what lives in half-dead, forgotten or tiny shards into new, full ones."""
    place, begun = Lake(lake, recipe.name), time.monotonic()
    done = compact_shards(recipe, place, progress=onlooker())
    publish_artifact(place, done.manifest, done.state)
    return reference_to(done.manifest, done.state, time.monotonic() - begun)
