"""The scrape as a Prefect task: the one stage that talks to a network, so the one that is retried."""

from __future__ import annotations

from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun

from sp_data.errors import WikiUnreachable
from sp_data.recipe import Recipe
from tasks.reference import StageReference
from tasks.stage import run_and_publish


def _is_network(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only what a second try can cure: a wiki that refuses us, or a wrong recipe, stays so."""
    return isinstance(state.result(raise_on_failure=False), WikiUnreachable)


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=20,
    retry_jitter_factor=0.5,
    retry_condition_fn=_is_network,
)
def scrape(recipe: Recipe, lake: str) -> StageReference:
    """List the wiki's pictures with their captions and fetch the originals."""
    return run_and_publish("scrape", recipe, lake)
