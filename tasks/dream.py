"""Pictures from words as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sp_data.generation.dream import SamplingOptions, dream_files, orders
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.report.markdown import pictures_markdown
from sp_data.runtime.progress import onlooker
from tasks.stage import artifact_key


@task(cache_policy=NO_CACHE)
def dream(recipe: Recipe, lake: str, prompts: list[str], num_pictures: int, seed: int, cond_scale: float) -> list[str]:
    """Make the pictures; returns their paths."""
    dataset_lake = Lake(lake, recipe.name)
    pictures = dream_files(
        recipe,
        dataset_lake,
        orders(prompts, num_pictures, seed),
        SamplingOptions(cond_scale=cond_scale),
        progress=onlooker(),
    )
    create_markdown_artifact(
        key=artifact_key(recipe.name, "dreams"),
        markdown=pictures_markdown(dataset_lake, pictures),
        description=f"{len(pictures)} pictures of {len(prompts)} prompts",
    )
    return [path for path, _ in pictures]
