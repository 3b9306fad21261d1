"""The dataset flow: from a wiki to a verified dataset. Stages that are done already are left alone."""

from __future__ import annotations

from prefect import State, flow

from flows.local_server import start_local_server
from flows.parameters import Changes, RecipeName, SetLine, chosen_recipe, dataset_lake, in_one_sentence, run_name
from sp_data.pipeline import DatasetStage
from tasks.follow_up import announce_change
from tasks.limits import tag_run
from tasks.reference import PipelineReference
from tasks.report import reported
from tasks.stages import run_dataset_stages
from tasks.summary import ended


@flow(flow_run_name=run_name)
@in_one_sentence
def dataset(
    recipe: RecipeName = "demo",
    until: DatasetStage = "verify",
    lake: str = "./lake",
    changes: Changes = Changes(),
    set: list[SetLine] = [],
    allow_shrink: bool = False,
) -> State[PipelineReference]:
    """Scrape a wiki and make a verified dataset of it; where nothing changed, nothing is made.

    A dataset that changed is announced: the automations of `sp-data deploy` then start a fine-tuning, as the recipe's
    `follow_up` says.

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
    note = announce_change(chosen, place, change) if until == "verify" else ""
    return ended(place, stages, reported(chosen, lake, stages), change, note=note)


if __name__ == "__main__":
    start_local_server()
    dataset()
