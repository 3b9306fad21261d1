"""The run's report as a Prefect task."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from sp_data.foreign_text import markdown_code
from sp_data.lake import Lake
from sp_data.pipeline import names_until
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests, write_report
from tasks.reference import StageReference
from tasks.stage import artifact_key

PAGE = "http://127.0.0.1:7860"
"""Where `sp-data ui` serves its page, unless it is told otherwise."""
PAGE_VARIABLE = "SP_PAGE"
"""Environment variable with the page's address as browsers see it, which only the operator knows."""


def page_address() -> str:
    """Where artifacts link to: the page's address, without a slash at its end."""
    return (os.environ.get(PAGE_VARIABLE) or PAGE).rstrip("/")


def reported(recipe: Recipe, lake: str, stages: Sequence[StageReference]) -> str:
    """Write the report on these stages, as a task if one of them did something; returns its path in the lake."""
    last = stages[-1].name
    return report(recipe, lake, last) if any(stage.state == "done" for stage in stages) else _write(recipe, lake, last)


def _write(recipe: Recipe, lake: str, until: str) -> str:
    dataset_lake = Lake(lake, recipe.name)
    return write_report(recipe, dataset_lake, load_manifests(dataset_lake, names_until(until)))


@task(cache_policy=NO_CACHE)
def report(recipe: Recipe, lake: str, until: str) -> str:
    """Write the report on the stages as far as `until`; returns its path in the lake."""
    dataset_lake = Lake(lake, recipe.name)
    path = _write(recipe, lake, until)
    # A browser opens no file:// from Prefect's page.
    create_link_artifact(
        link=f"{page_address()}/lake/{path}",
        link_text=path,
        key=artifact_key(recipe.name, "report"),
        description=f"The run's report, in {markdown_code(dataset_lake.full(path))}; the link opens while "
        f"{dataset_lake.command('ui')} serves it",
    )
    return path
