"""The training of the prior as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.training import train_and_publish


@task(cache_policy=NO_CACHE, retries=0)
def prior(recipe: Recipe, lake: str) -> StageReference:
    """Train the prior on the verified dataset."""
    return train_and_publish("prior", recipe, lake)
