"""The compaction flow: new shards for what lives in shards that are not worth keeping, and all that follows from them.

Where there is nothing to compact, nothing is written.
"""

from __future__ import annotations

from prefect import flow

from sp_data.recipe import Recipe, demo
from tasks.compact import compact as compact_shards
from tasks.embed import embed
from tasks.reference import RoadReference
from tasks.reorder import reorder
from tasks.report import report
from tasks.spread import spreading
from tasks.verify import verify


@flow
def compact(recipe: Recipe = demo(), lake: str = "./lake") -> RoadReference:
    """Compact the shards, then embed, reorder and verify."""
    stages = (compact_shards, embed, reorder, verify)
    with spreading(recipe.machines):
        done = tuple(stage(recipe, lake) for stage in stages)
    return RoadReference(stages=done, report=report(recipe, lake, "verify"))


if __name__ == "__main__":
    compact()
