"""The judge of the demo's pictures as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


@task(cache_policy=NO_CACHE)
def judge(recipe: Recipe, lake: str) -> StageReference:
    """Ask for kids in words and measure the pictures."""
    return run_and_publish("judge", recipe, lake)
