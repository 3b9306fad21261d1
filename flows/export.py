"""The export flow: a verified dataset in a form that another trainer reads."""

from __future__ import annotations

from prefect import flow

from flows.local_server import start_local_server
from sp_data.dataset.curate.splits import SPLITS, Split
from sp_data.recipe import Recipe, demo
from tasks.export import To
from tasks.export import export as export_dataset
from tasks.ray_jobs import running_jobs


@flow
def export(
    to: To = "dalle2-pytorch",
    folder: str = "./export",
    splits: tuple[Split, ...] = SPLITS,
    embeddings_in_tars: bool = False,
    recipe: Recipe = demo(),
    lake: str = "./lake",
) -> dict[str, int]:
    """Write the newest verified dataset to `folder`; returns the number of samples of each split."""
    with running_jobs(recipe.machines):
        return export_dataset(recipe, lake, to, folder, splits, embeddings_in_tars)


if __name__ == "__main__":
    start_local_server()
    export()
