"""What a dataset and the Prefect server need from time to time, as tasks: garbage collected, old runs removed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from prefect import get_client, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES

from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.upkeep.collect_garbage import collect
from tasks.limits import tag_of

log = logging.getLogger("sp_data.tasks")

RUNS_A_REQUEST = 200


@task(cache_policy=NO_CACHE)
def collect_garbage(recipe: Recipe, lake: str) -> int:
    """Remove files of the dataset that no kept snapshot and no checkpoint needs; returns their bytes."""
    waste = collect(recipe, Lake(lake, recipe.name), delete=True)
    for warning in waste.warnings:
        log.warning("%s", warning)
    log.info("removed %d files, %.1f MB", waste.num_files, waste.num_bytes / 1e6)
    return waste.num_bytes


@task(cache_policy=NO_CACHE)
def remove_old_runs(dataset: str, keep_days: int) -> int:
    """Remove ended runs of this dataset that are older than `keep_days` from the server; returns how many.

    The server removes what belonged to them, and gives the space back, by its vacuum
    (PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED).
    """
    old = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag_of(dataset)]),
        end_time=FlowRunFilterEndTime(before_=datetime.now(UTC) - timedelta(days=keep_days)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))),
    )
    removed = 0
    with get_client(sync_client=True) as client:
        while runs := client.read_flow_runs(flow_run_filter=old, limit=RUNS_A_REQUEST):
            for run in runs:
                if str(run.id) != runtime.flow_run.id:
                    client.delete_flow_run(run.id)
                    removed += 1
            if len(runs) < RUNS_A_REQUEST:
                break
    return removed
