"""The whole road: the dataset flow, then the fine-tuning flow. What did not change is left alone."""

from __future__ import annotations

from prefect import flow

from flows.dataset import dataset
from flows.finetune import finetune
from sp_data.pipeline import StageName, is_dataset_stage, is_training_stage
from sp_data.recipe import Recipe, demo
from tasks.reference import RoadReference


@flow
def pipeline(recipe: Recipe = demo(), lake: str = "./lake", until: StageName = "judge") -> RoadReference:
    """From a wiki to pictures, as far as `until`."""
    made = dataset(recipe, lake, until if is_dataset_stage(until) else "verify")
    if not is_training_stage(until):
        return made
    tuned = finetune(recipe, lake, until)
    return RoadReference(stages=(*made.stages, *tuned.stages), report=tuned.report)


if __name__ == "__main__":
    pipeline()
