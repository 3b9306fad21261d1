"""The compaction flow: new shards for what lives in shards that are not worth keeping, and all that follows from them.

Where there is nothing to compact, nothing is written.
"""

from __future__ import annotations

from prefect import flow

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
        done = tuple(stage_task(name)(recipe, lake) for name in ("embed", "reorder", "verify"))
    return PipelineReference(stages=(compacted, *done), report=report(recipe, lake, "verify"))


if __name__ == "__main__":
    compact()
