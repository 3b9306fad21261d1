"""What both training tasks do.

They are never retried by themselves: what ended a training (memory, a wrong recipe) ends it again, hours later. A retry
by hand goes on from the latest checkpoint. They are called directly, not submitted: a cancellation reaches the main
thread only, and ends the training's process group from there.
"""

from __future__ import annotations

from sp_data.recipe import Recipe
from sp_data.runtime.progress import onlooker
from tasks.progress import ProgressArtifact
from tasks.reference import StageReference
from tasks.stage import artifact_key, run_and_publish


def train_and_publish(kind: str, recipe: Recipe, lake: str) -> StageReference:
    """Train with a bar in the Prefect UI; say what came out."""
    return run_and_publish(
        kind, recipe, lake, ProgressArtifact(artifact_key(recipe.name, f"{kind}-progress"), onlooker())
    )
