"""The verify stage as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


@task(cache_policy=NO_CACHE)
def verify(recipe: Recipe, lake: str) -> StageReference:
    """Check every joint of the dataset and publish its manifest."""
    return run_and_publish("verify", recipe, lake)
