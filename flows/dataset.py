"""The dataset flow: from a wiki to a verified dataset. What is done already is left alone."""

from __future__ import annotations

from prefect import flow

from sp_data.pipeline import DatasetStage
from sp_data.recipe import Recipe, demo
from tasks.curate import curate
from tasks.embed import embed
from tasks.reference import RoadReference, StageReference
from tasks.reorder import reorder
from tasks.report import report
from tasks.scrape import scrape
from tasks.shard import shard
from tasks.spread import spreading
from tasks.verify import verify

ROAD = (scrape, curate, shard, embed, reorder, verify)


@flow
def dataset(recipe: Recipe = demo(), lake: str = "./lake", until: DatasetStage = "verify") -> RoadReference:
    """Scrape, curate, shard, embed, reorder and verify, as far as `until`."""
    done: list[StageReference] = []
    with spreading(recipe.machines):
        for stage in ROAD:
            done.append(stage(recipe, lake))
            if stage.name == until:
                break
    return RoadReference(stages=tuple(done), report=report(recipe, lake, until))


if __name__ == "__main__":
    dataset()
