"""The monthly flow: shards compacted, files without a manifest removed, old runs removed from the server."""

from __future__ import annotations

from typing import Annotated

from prefect import State, flow
from pydantic import Field

from flows.local_server import start_local_server
from flows.parameters import NO_CHANGES, RecipeName, chosen_recipe, dataset_lake, in_one_sentence, run_name
from sp_data.kept_recipe import remembered
from tasks.compact import compact as compact_shards
from tasks.limits import one_at_a_time, tag_run
from tasks.ray_jobs import running_jobs
from tasks.reference import PipelineReference
from tasks.report import reported
from tasks.stages import run_stage_task
from tasks.summary import ended


@flow(flow_run_name=run_name)
@in_one_sentence
def upkeep(
    recipe: RecipeName = "demo", lake: str = "./lake", keep_runs_days: Annotated[int, Field(ge=0, le=36_500)] = 90
) -> State[PipelineReference]:
    """Compact the shards, remove files that no manifest names, and remove old runs from the server's database.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        lake: Where the data lies: a folder of the worker or a URL.
        keep_runs_days: Ended runs of this dataset that are older are removed from the server; 0: none.
    """
    chosen = chosen_recipe(recipe, lake, NO_CHANGES, [])
    tag_run(chosen.name)
    # It imports torch, which a deployment, that reads the parameters alone, need not wait for.
    from tasks.upkeep import collect_garbage, remove_old_runs

    place = dataset_lake(chosen, lake)
    with one_at_a_time("dataset", chosen.name), remembered(chosen, place), running_jobs(chosen.machines):
        stages = [compact_shards(chosen, lake)]
        stages += [run_stage_task(name, chosen, lake) for name in ("embed", "reorder", "verify")]
        freed = collect_garbage(chosen, lake)
    removed = remove_old_runs(chosen.name, keep_runs_days) if keep_runs_days else 0
    note = f"{freed / 1e6:,.1f} MB freed, {removed:,} old runs removed"
    return ended(place, stages, reported(chosen, lake, stages), None, note=note)


if __name__ == "__main__":
    start_local_server()
    upkeep()
