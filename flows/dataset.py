"""The dataset flow: from a wiki to a verified dataset. Stages that are done already are left alone."""

from __future__ import annotations

from prefect import flow

from flows.local_server import start_local_server
from sp_data.pipeline import DATASET_STAGES, DatasetStage, stages_of
from sp_data.recipe import Recipe, demo
from tasks.ray_jobs import running_jobs
from tasks.reference import PipelineReference
from tasks.report import report
from tasks.stage import stage_task


@flow
def dataset(
    recipe: Recipe = demo(), lake: str = "./lake", until: DatasetStage = "verify", allow_shrink: bool = False
) -> PipelineReference:
    """Scrape, curate, shard, embed, reorder and verify, as far as `until`.

    `allow_shrink`: take it as meant that the wiki or the list lost most of its pictures.
    """
    options = {"scrape": {"allow_shrink": allow_shrink}} if allow_shrink else {}
    names = [name for name in stages_of(recipe, until) if name in DATASET_STAGES]
    with running_jobs(recipe.machines):
        stages = tuple(stage_task(name)(recipe, lake, options.get(name)) for name in names)
    return PipelineReference(stages=stages, report=report(recipe, lake, until))


if __name__ == "__main__":
    start_local_server()
    dataset()
