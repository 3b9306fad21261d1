"""The run's page as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from sp_data.lake import Lake
from sp_data.pipeline import stages_of
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests, write_report
from tasks.stage import artifact_key


@task(cache_policy=NO_CACHE)
def report(recipe: Recipe, lake: str, until: str) -> str:
    """Write the page of a run as far as `until`; returns its path in the lake."""
    place = Lake(lake, recipe.name)
    path = write_report(recipe, place, load_manifests(place, stages_of(recipe, until)))
    address = f"file://{place.full(path)}" if place.is_local else place.full(path)
    create_link_artifact(link=address, key=artifact_key(recipe.name, "report"), description="The run as a page")
    return path
