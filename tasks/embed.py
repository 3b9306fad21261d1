"""The embed stage as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


@task(cache_policy=NO_CACHE)
def embed(recipe: Recipe, lake: str) -> StageReference:
    """Embed the pictures and captions of new shards."""
    return run_and_publish("embed", recipe, lake)
