"""The curate stage as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


@task(cache_policy=NO_CACHE)
def curate(recipe: Recipe, lake: str) -> StageReference:
    """Decide what is kept, in which split, and why the rest is not."""
    return run_and_publish("curate", recipe, lake)
