"""The generation flow: pictures from words, by the best checkpoints of a dataset."""

from __future__ import annotations

from prefect import flow

from flows.local_server import start_local_server
from sp_data.recipe import Recipe, demo
from tasks.dream import dream

PROMPT = "a kid in a red coat and a blue cap at the lake"


@flow
def generate(
    prompts: list[str] = [PROMPT],
    num_pictures: int = 4,
    seed: int = 0,
    cond_scale: float = 1.0,
    recipe: Recipe = demo(),
    lake: str = "./lake",
) -> list[str]:
    """Make `num_pictures` pictures of each prompt; returns the paths of the PNGs."""
    return dream(recipe, lake, prompts, num_pictures, seed, cond_scale)


if __name__ == "__main__":
    start_local_server()
    generate()
