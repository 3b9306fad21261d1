"""Who waits for whom: one run writes a dataset at a time, one asks a wiki's host, one trains on a machine's GPU.

The limits are Prefect's global concurrency limits, so they hold across deployments, schedules and runs by hand. A run
whose worker was killed gives its slot back when its lease ends, after five minutes. The lake's own locks stand behind
them: where runs do not share a server, the second writer of a dataset is refused.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from prefect import get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency

from sp_data.recipe import Recipe

log = logging.getLogger("sp_data.tasks")


def limit_name(what: str, which: str) -> str:
    """'sp-data-dataset-southpark': the name of a limit, without what Prefect forbids in one."""
    return "sp-data-" + re.sub(r"[^A-Za-z0-9._-]+", "-", f"{what}-{which}")


@contextlib.contextmanager
def one_at_a_time(what: str, which: str) -> Iterator[None]:
    """Wait for the one slot of `what` (dataset, wiki, training) that is called `which`, and hold it."""
    name = limit_name(what, which)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
        _say_who_holds(client, name, what, which)
    # Not strict: a server that is away for a moment must not end a training of days.
    with concurrency(name, occupy=1, strict=False, raise_on_lease_renewal_failure=False):
        yield


def wiki_host(recipe: Recipe) -> str:
    """The host that a scrape of this recipe asks most."""
    return urlsplit(recipe.source.wiki).netloc or "addresses"


def tag_of(dataset: str) -> str:
    """The tag of every run on this dataset, by which the UI finds them."""
    return f"dataset:{dataset}"


def tag_run(dataset: str) -> None:
    """Tag this flow run with its dataset."""
    if runtime.flow_run.id:
        with get_client(sync_client=True) as client:
            tags = {*(runtime.flow_run.tags or ()), "sp-data", tag_of(dataset)}
            client.update_flow_run(runtime.flow_run.id, tags=sorted(tags))


def _say_who_holds(client: SyncPrefectClient, name: str, what: str, which: str) -> None:
    limit = client.read_global_concurrency_limit_by_name(name)
    if limit.active_slots < limit.limit:
        return
    running = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(any_=[tag_of(which)]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
        )
    )
    others = [f"{run.name} ({run.id})" for run in running if str(run.id) != runtime.flow_run.id]
    log.info("waiting for %s %s: %s", what, which, ", ".join(others) or f"another run holds the limit {name}")
