"""The compaction flow: new shards for pictures in shards that are not worth keeping, then the stages after them.

If there is nothing to compact, nothing is written.
"""

from __future__ import annotations

from prefect import State, flow

from flows.local_server import start_local_server
from flows.parameters import NO_CHANGES, RecipeName, chosen_recipe, dataset_lake, in_one_sentence, run_name
from tasks.compact import compact as compact_shards
from tasks.limits import one_at_a_time, tag_run
from tasks.ray_jobs import running_jobs
from tasks.reference import PipelineReference
from tasks.report import report
from tasks.stages import run_stage_task
from tasks.summary import ended


@flow(flow_run_name=run_name)
@in_one_sentence
def compact(recipe: RecipeName = "demo", lake: str = "./lake") -> State[PipelineReference]:
    """Put the pictures of half-dead, forgotten or tiny shards into new, full ones; then embed, reorder and verify.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        lake: Where the data lies: a folder of the worker or a URL.
    """
    chosen = chosen_recipe(recipe, lake, NO_CHANGES, [])
    tag_run(chosen.name)
    with one_at_a_time("dataset", chosen.name), running_jobs(chosen.machines):
        stages = [compact_shards(chosen, lake)]
        stages += [run_stage_task(name, chosen, lake) for name in ("embed", "reorder", "verify")]
    return ended(dataset_lake(chosen, lake), stages, report(chosen, lake, "verify"), None)


if __name__ == "__main__":
    start_local_server()
    compact()
