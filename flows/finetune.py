"""The fine-tuning flow: prior and decoder on the verified dataset, then the judge if the recipe has one.

For an unchanged dataset nothing is trained: a training is done once its manifest is published.
"""

from __future__ import annotations

from prefect import flow

from flows.local_server import start_local_server
from sp_data.pipeline import TRAINING_STAGES, TrainingStage, stages_of
from sp_data.recipe import Recipe, demo
from tasks.reference import PipelineReference
from tasks.report import report
from tasks.stage import stage_task


@flow
def finetune(recipe: Recipe = demo(), lake: str = "./lake", until: TrainingStage = "judge") -> PipelineReference:
    """Train the prior and the decoder, and judge their pictures, as far as `until`."""
    names = [name for name in stages_of(recipe, until) if name in TRAINING_STAGES]
    stages = tuple(stage_task(name)(recipe, lake) for name in names)
    return PipelineReference(stages=stages, report=report(recipe, lake, names[-1]))


if __name__ == "__main__":
    start_local_server()
    finetune()
