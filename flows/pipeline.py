"""The whole pipeline in one run: the dataset's stages, then the trainings. What did not change is left alone."""

from __future__ import annotations

from prefect import State, flow

from flows.local_server import start_local_server
from flows.parameters import Changes, RecipeName, SetLine, chosen_recipe, dataset_lake, in_one_sentence, run_name
from sp_data.pipeline import DATASET_STAGES, StageName
from tasks.follow_up import announce_training
from tasks.limits import tag_run
from tasks.reference import PipelineReference
from tasks.report import reported
from tasks.stages import run_dataset_stages, run_training_stages
from tasks.summary import ended


@flow(flow_run_name=run_name)
@in_one_sentence
def pipeline(
    recipe: RecipeName = "demo",
    until: StageName = "judge",
    lake: str = "./lake",
    changes: Changes = Changes(),
    set: list[SetLine] = [],
    allow_shrink: bool = False,
) -> State[PipelineReference]:
    """Run all stages, from the wiki to the judged pictures.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        until: The last stage to run.
        lake: Where the data lies: a folder of the worker or a URL.
        changes: What one really changes; empty or 0: as the recipe says. Of a recipe file, for this run and the
            fine-tuning that follows it: the file is taken again next time. Else kept with the dataset from now on,
            unless the run is refused.
        set: Any other field, one a line: `curate.min_side_px=32`.
        allow_shrink: Take it as meant that the wiki or the list lost most of its pictures.
    """
    chosen = chosen_recipe(recipe, lake, changes, set)
    place = dataset_lake(chosen, lake)
    tag_run(chosen.name)
    stages, change = run_dataset_stages(chosen, lake, until, allow_shrink=allow_shrink)
    if until not in DATASET_STAGES:
        stages += run_training_stages(chosen, lake, until) or []
        announce_training(place)
    return ended(place, stages, reported(chosen, lake, stages), change)


if __name__ == "__main__":
    start_local_server()
    pipeline()
