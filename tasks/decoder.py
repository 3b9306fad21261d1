"""The training of the decoder as a Prefect task.

Never retried by itself: what ended a training (memory, a wrong recipe) ends it again, hours later. A retry by hand goes
on from the latest checkpoint. Called directly, not submitted: a cancellation reaches the main thread only, and ends the
training's process group from there.
"""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sp_data.progress import onlooker
from sp_data.recipe import Recipe
from tasks.progress import ProgressArtifact
from tasks.reference import StageReference
from tasks.stage import artifact_key, run_and_publish


@task(cache_policy=NO_CACHE, retries=0)
def decoder(recipe: Recipe, lake: str) -> StageReference:
    """Train the decoder on the verified dataset."""
    progress = ProgressArtifact(artifact_key(recipe.name, "decoder-progress"), onlooker())
    return run_and_publish("decoder", recipe, lake, progress)
