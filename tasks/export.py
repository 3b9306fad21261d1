"""The export of a verified dataset as a Prefect task."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sp_data.dataset.curate.splits import Split
from sp_data.exchange.export.run import export as write
from sp_data.exchange.export.run import form_of
from sp_data.lake import Lake
from sp_data.pipeline import done_manifest
from sp_data.recipe import Recipe
from sp_data.report.markdown import export_markdown
from sp_data.runtime.progress import onlooker
from tasks.ray_jobs import current_runner
from tasks.stage import artifact_key

To = Literal["dalle2-pytorch", "imagefolder", "kohya"]


@task(cache_policy=NO_CACHE)
def export(
    recipe: Recipe, lake: str, to: To, folder: str, splits: tuple[Split, ...], embeddings_in_tars: bool
) -> dict[str, int]:
    """Write the dataset for another trainer; returns the number of samples of each split."""
    dataset_lake = Lake(lake, recipe.name)
    verified = done_manifest("verify", recipe, dataset_lake, for_what="export")
    form = form_of(to, verified, recipe, embeddings_in_tars=embeddings_in_tars)
    result = write(
        verified, form, dataset_lake, Path(folder), to=to, splits=splits, runner=current_runner(), progress=onlooker()
    )
    create_markdown_artifact(
        key=artifact_key(recipe.name, "export"),
        markdown=export_markdown(result, verified.digest),
        description=f"{result.num_samples:,} samples for {to}",
    )
    return result.splits
