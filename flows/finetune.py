"""The fine-tuning flow: prior and decoder on the verified dataset, then the judge if the recipe has one.

For an unchanged dataset nothing is trained: a training is done once its manifest is published.
"""

from __future__ import annotations

from prefect import State, flow
from prefect.states import Completed

from flows.local_server import start_local_server
from flows.parameters import Changes, RecipeName, SetLine, chosen_recipe, dataset_lake, in_one_sentence, run_name
from sp_data.pipeline import TrainingStage
from tasks.follow_up import NotApproved, announce_training, wait_for_approval
from tasks.limits import tag_run
from tasks.reference import PipelineReference
from tasks.report import reported
from tasks.stages import run_training_stages
from tasks.summary import ended


@flow(flow_run_name=run_name)
@in_one_sentence
def finetune(
    recipe: RecipeName = "demo",
    until: TrainingStage = "judge",
    lake: str = "./lake",
    changes: Changes = Changes(),
    set: list[SetLine] = [],
    because: str = "",
) -> State[PipelineReference]:
    """Train the prior and the decoder on the verified dataset, and judge their pictures where the recipe has a judge.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        until: The last stage to run.
        lake: Where the data lies: a folder of the worker or a URL.
        changes: What one really changes; empty or 0: as the recipe says. Of a recipe file, for this run and the
            fine-tuning that follows it: the file is taken again next time. Else kept with the dataset from now on,
            unless the run is refused.
        set: Any other field, one a line: `prior.learning_rate=1e-5`.
        because: Why an automation started it; such a run waits for an approval where the recipe asks for one.
    """
    chosen = chosen_recipe(recipe, lake, changes, set)
    tag_run(chosen.name)
    place = dataset_lake(chosen, lake)
    stages = None
    while stages is None:
        approved = None
        if because and chosen.follow_up.ask_first:
            try:
                approved = wait_for_approval(chosen, place)
            except NotApproved:
                return Completed(name="Not approved", message=because, data=PipelineReference(stages=(), report=""))
        # None: while this run waited for the GPU, the dataset became another one than was approved.
        stages = run_training_stages(chosen, lake, until, only=approved)
    announce_training(place)
    return ended(place, stages, reported(chosen, lake, stages), None, note=because)


if __name__ == "__main__":
    start_local_server()
    finetune()
