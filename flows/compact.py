"""The compaction flow: new shards for pictures in shards that are not worth keeping, then the stages after them.

If there is nothing to compact, nothing is written.
"""

from __future__ import annotations

from prefect import flow

from flows.local_server import start_local_server
from sp_data.recipe import Recipe, demo
from tasks.compact import compact as compact_shards
from tasks.ray_jobs import running_jobs
from tasks.reference import PipelineReference
from tasks.report import report
from tasks.stage import stage_task


@flow
def compact(recipe: Recipe = demo(), lake: str = "./lake") -> PipelineReference:
    """Compact the shards, then embed, reorder and verify."""
    with running_jobs(recipe.machines):
        compacted = compact_shards(recipe, lake)
        later_stages = tuple(stage_task(name)(recipe, lake) for name in ("embed", "reorder", "verify"))
    return PipelineReference(stages=(compacted, *later_stages), report=report(recipe, lake, "verify"))


if __name__ == "__main__":
    start_local_server()
    compact()
