"""The fine-tuning flow: prior and decoder on the verified dataset, then the judge where the recipe has one.

A dataset that did not change since costs nothing: each training is done when its manifest is there.
"""

from __future__ import annotations

from prefect import flow

from sp_data.pipeline import TRAINING_STAGES, TrainingStage, stages_of
from sp_data.recipe import Recipe, demo
from tasks.reference import PipelineReference
from tasks.report import report
from tasks.stage import stage_task


@flow
def finetune(recipe: Recipe = demo(), lake: str = "./lake", until: TrainingStage = "judge") -> PipelineReference:
    """Train the prior and the decoder, and judge their pictures, as far as `until`."""
    names = [name for name in stages_of(recipe, until) if name in TRAINING_STAGES]
    done = tuple(stage_task(name)(recipe, lake) for name in names)
    return PipelineReference(stages=done, report=report(recipe, lake, names[-1]))


if __name__ == "__main__":
    finetune()
