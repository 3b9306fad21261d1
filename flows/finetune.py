"""The fine-tuning flow: prior and decoder on the verified dataset, then the judge where the recipe has one.

A dataset that did not change since costs nothing: each training is done when its manifest is there.
"""

from __future__ import annotations

from prefect import flow

from sp_data.pipeline import TrainingStage, stages_of
from sp_data.recipe import Recipe, demo
from tasks.decoder import decoder
from tasks.judge import judge
from tasks.prior import prior
from tasks.reference import RoadReference, StageReference
from tasks.report import report

ROAD = (prior, decoder, judge)


@flow
def finetune(recipe: Recipe = demo(), lake: str = "./lake", until: TrainingStage = "judge") -> RoadReference:
    """Train the prior and the decoder, and judge their pictures, as far as `until`."""
    done: list[StageReference] = []
    for stage in ROAD:
        if stage.name in stages_of(recipe):
            done.append(stage(recipe, lake))
        if stage.name == until:
            break
    return RoadReference(stages=tuple(done), report=report(recipe, lake, done[-1].name))


if __name__ == "__main__":
    finetune()
