"""Deploy some datasets on the Prefect server that the settings name, compare, or remove them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from deployments.reconcile import Change, Reconciler
from deployments.wanted import GPU_QUEUE, POOL, QUEUE, Target, check_targets, longest_gap_days, wanted
from flows.local_server import check_server
from sp_data.errors import StageError, UsageError
from sp_data.recipe import Recipe

WORKER = f"prefect worker start --pool {POOL}"
WHAT_TO_START = (
    f"start a worker in this folder, for all runs: {WORKER}",
    f"if the GPU is in another machine: here {WORKER} --work-queue {QUEUE}, there {WORKER} --work-queue {GPU_QUEUE} "
    "--limit 1",
)
"""Lines for a person who has deployed. A worker without a queue takes the runs of all queues."""


def deploy(
    recipes: Sequence[tuple[str, Recipe]],
    offered: Iterable[str],
    lake: str,
    *,
    every: str | None = None,
    notify: str | None = None,
    check: bool = False,
) -> list[Change]:
    """Make what the datasets of these recipes need; returns what was done.

    `recipes`: the name that runs are given, and the recipe it means. `offered`: further names for the forms. `every`:
    the cron of the re-scrapes; None: as they are, and weekly for a new deployment. `notify`: TYPE/NAME of a
    notification block. `check`: write nothing.

    Raises UsageError, StageError if the server does not answer or refuses.
    """
    if every is not None:
        _check_cron(every)
    targets = [Target.of(name, recipe, lake, every) for name, recipe in recipes]
    check_targets(targets)
    with _client() as client:
        reconciler = Reconciler(client, dry=check)
        block = _block_id(client, notify) if notify else None
        targets = [replace(target, crons_there=reconciler.crons(f"dataset/{target.dataset}")) for target in targets]
        return reconciler.apply(wanted(targets, offered, str(Path.cwd()), block))


def remove(datasets: Iterable[str]) -> list[Change]:
    """Take away what was made for these datasets; returns what was removed.

    Raises StageError if the server does not answer or refuses.
    """
    with _client() as client:
        return Reconciler(client).remove(datasets)


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    """A client of the server that the settings name. Raises StageError if none is named or it does not answer."""
    check_server()
    with get_client(sync_client=True) as client:
        yield client


def _check_cron(every: str) -> None:
    try:
        CronSchedule(cron=every)
        # A cron of which no day comes, such as the 30th of February, is found by its days alone.
        longest_gap_days(every)
    except ValueError as error:
        raise UsageError(f"--every {every!r}: expected a cron such as '0 4 * * 1' (Mondays at four, UTC)") from error


def _block_id(client: SyncPrefectClient, name: str) -> str:
    block_type, _, document = name.partition("/")
    try:
        return str(client.read_block_document_by_name(document, block_type).id)
    except ObjectNotFound as error:
        raise UsageError(
            f"--notify {name}: the server has no such block; make one in the UI under Blocks, and give TYPE/NAME"
        ) from error
    except httpx.HTTPError as error:
        raise StageError(f"the Prefect server no longer answers: {error or type(error).__name__}") from error
