"""The reorder stage as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


@task(cache_policy=NO_CACHE)
def reorder(recipe: Recipe, lake: str) -> StageReference:
    """Put the embeddings in the order of the pictures."""
    return run_and_publish("reorder", recipe, lake)
