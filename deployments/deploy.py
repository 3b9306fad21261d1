"""Deploy some datasets on the Prefect server that the settings name, compare, or remove them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from deployments.reconcile import Change, Reconciler
from deployments.wanted import POOL, Target, check_targets, wanted
from flows.local_server import check_server
from sp_data.errors import UsageError
from sp_data.recipe import Recipe

WHAT_TO_START = (
    f"start a worker in this folder: prefect worker start --pool {POOL}\n"
    f"and one on the machine with the GPU: prefect worker start --pool {POOL} --work-queue gpu --limit 1"
)


def deploy(
    recipes: Sequence[tuple[str, Recipe]],
    offered: Iterable[str],
    lake: str,
    *,
    every: str,
    notify: str | None = None,
    check: bool = False,
    remove: bool = False,
) -> list[Change]:
    """Make what the datasets of these recipes need, or with `remove` take it away; returns what was done.

    `recipes`: the name that runs are given, and the recipe it means. `offered`: further names for the forms. `every`:
    the cron of the re-scrapes. `notify`: TYPE/NAME of a notification block. `check`: write nothing.

    Raises UsageError, StageError if the server does not answer or refuses.
    """
    try:
        CronSchedule(cron=every)
    except ValueError as error:
        raise UsageError(f"--every {every!r}: expected a cron such as '0 4 * * 1' (Mondays at four, UTC)") from error
    targets = [Target.of(Path(name).name, recipe, lake, every) for name, recipe in recipes]
    check_targets(targets)
    check_server()
    with get_client(sync_client=True) as client:
        reconciler = Reconciler(client, dry=check)
        if remove:
            return reconciler.remove([target.dataset for target in targets])
        block = _block_id(client, notify) if notify else None
        return reconciler.apply(wanted(targets, offered, str(Path.cwd()), block))


def _block_id(client: SyncPrefectClient, name: str) -> str:
    block_type, _, document = name.partition("/")
    try:
        return str(client.read_block_document_by_name(document, block_type).id)
    except ObjectNotFound as error:
        raise UsageError(
            f"--notify {name}: the server has no such block; make one in the UI under Blocks, and give TYPE/NAME"
        ) from error
