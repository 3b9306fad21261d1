"""The whole pipeline: the dataset flow, then the fine-tuning flow. Stages with unchanged inputs are left alone."""

from __future__ import annotations

from prefect import flow

from flows.dataset import dataset
from flows.finetune import finetune
from flows.local_server import start_local_server
from sp_data.pipeline import DATASET_STAGES, StageName
from sp_data.recipe import Recipe, demo
from tasks.reference import PipelineReference


@flow
def pipeline(
    recipe: Recipe = demo(), lake: str = "./lake", until: StageName = "judge", allow_shrink: bool = False
) -> PipelineReference:
    """Run all stages from the wiki to the judged pictures, as far as `until`.

    `allow_shrink`: take it as meant that the wiki or the list lost most of its pictures.
    """
    if until in DATASET_STAGES:
        return dataset(recipe, lake, until, allow_shrink)
    verified = dataset(recipe, lake, DATASET_STAGES[-1], allow_shrink)
    tuned = finetune(recipe, lake, until)
    return PipelineReference(stages=(*verified.stages, *tuned.stages), report=tuned.report)


if __name__ == "__main__":
    start_local_server()
    pipeline()
