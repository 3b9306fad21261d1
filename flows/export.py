"""The export flow: a verified dataset in a form that another trainer reads."""

from __future__ import annotations

from prefect import State, flow
from prefect.states import Completed

from flows.local_server import start_local_server
from flows.parameters import NO_CHANGES, RecipeName, chosen_recipe, in_one_sentence, run_name
from sp_data.dataset.curate.splits import SPLITS, Split
from tasks.export import To
from tasks.export import export as export_dataset
from tasks.limits import tag_run
from tasks.ray_jobs import running_jobs


@flow(flow_run_name=run_name)
@in_one_sentence
def export(
    recipe: RecipeName = "demo",
    to: To = "dalle2-pytorch",
    folder: str = "./export",
    splits: tuple[Split, ...] = SPLITS,
    embeddings_in_tars: bool = False,
    lake: str = "./lake",
) -> State[dict[str, int]]:
    """Write the newest verified dataset for another trainer; the result is the number of samples of each split.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        to: The trainer's form.
        folder: Where to write it, on the worker.
        splits: Which splits.
        embeddings_in_tars: Put each picture's embedding into the tars, beside it.
        lake: Where the data lies: a folder of the worker or a URL.
    """
    chosen = chosen_recipe(recipe, lake, NO_CHANGES, [])
    tag_run(chosen.name)
    with running_jobs(chosen.machines):
        counts = export_dataset(chosen, lake, to, folder, splits, embeddings_in_tars)
    return Completed(message=f"{sum(counts.values()):,} samples in {folder}", data=counts)


if __name__ == "__main__":
    start_local_server()
    export()
