"""Who waits for whom: one run writes a dataset at a time, one asks a wiki's host, one trains on a machine's GPU.

The limits are Prefect's global concurrency limits, so they hold across deployments, schedules and runs by hand. Prefect
keeps who holds a slot in the server's memory: a server that is started again would call it taken for ever. So each run
says in a label of its own what it waits for or holds, and the next one frees a slot that no living run holds. The
lake's own locks stand behind the limits: where runs do not share a server, the second writer of a dataset is refused.

    "sp-data-dataset-southpark": "waits worker-1 0b5e… pid:[4026531836] 4711"     before its first try to take the slot
    "sp-data-dataset-southpark": "holds worker-1 0b5e… pid:[4026531836] 4711"     after it took it
    "sp-data-dataset-southpark": ""                                               after it gave it back
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

import httpx
from prefect import get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException

from sp_data.recipe import Recipe
from tasks.process_name import is_gone, process_name

log = logging.getLogger("sp_data.tasks")

OURS = "sp-data"
"""The tag of all runs of ours, and of what `sp-data deploy` made."""
LOOK_AGAIN_S = 3.0
"""A waiting run tries so often."""
LOOKS, LOOKS_BESIDE_OTHERS = 2, 20
"""It frees a slot that nobody was seen to hold so often; the latter if others wait, of whom one may have just taken it:
on a server that is busy, its label comes late."""
LOOKS_A_TURN = 2
"""Those who wait free in turn: where two did so at once, the second would free the slot that the first one took."""
CLAIMS = 200
"""So often a run leaves a free slot to another one that says that it holds it: ten minutes, in which a run without a
heartbeat is called crashed. On a server without that rule nobody waits for ever."""
WAITS, HOLDS = "waits", "holds"
MAY_HOLD = [StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]


def limit_name(what: str, which: str) -> str:
    """'sp-data-dataset-southpark': the name of a limit, without what Prefect forbids in one."""
    return "sp-data-" + re.sub(r"[^A-Za-z0-9._-]+", "-", f"{what}-{which}")


@contextlib.contextmanager
def one_at_a_time(what: str, which: str) -> Iterator[None]:
    """Wait for the one slot of `what` (dataset, wiki, training) that is called `which`, and hold it."""
    name = limit_name(what, which)
    with contextlib.ExitStack() as slot:
        # After the slot was given back: one that is held must not look like an orphan.
        slot.callback(_forget, name)
        with get_client(sync_client=True) as client:
            _make(client, name)
            _label(client, name, f"{WAITS} {process_name()}")
            _wait(slot, client, what, which)
            _label(client, name, f"{HOLDS} {process_name()}")
        yield


def may_free(num_looks: int, own_id: str, waiting: Collection[str]) -> bool:
    """Whether a run may free a slot that it saw held by nobody at so many looks, one after the other.

    `waiting`: the ids of other living runs that wait for it, or say so still.
    """
    if not waiting:
        return num_looks >= LOOKS
    turn = sum(other < own_id for other in waiting)
    return num_looks >= LOOKS_BESIDE_OTHERS + turn * LOOKS_A_TURN


def _wait(slot: contextlib.ExitStack, client: SyncPrefectClient, what: str, which: str) -> None:
    """Take the slot as soon as it is free, or can be freed."""
    name, own_id = limit_name(what, which), str(runtime.flow_run.id or "")
    told, num_looks, num_claims, seen = "", 0, 0, ""
    while True:
        attempt = contextlib.ExitStack()
        is_free = _took(attempt, name)
        holders, waiting = _holders_and_waiting(client, name)
        num_claims = num_claims + 1 if is_free and holders else 0
        if is_free and (not holders or num_claims > CLAIMS):
            slot.enter_context(attempt)
            return
        # Where it was free though a run says that it holds it, Prefect took it back from one that was not heard of for
        # minutes, and may live. Or that one has just given it back, and says so in a moment.
        attempt.close()
        limit, active_slots = _limit(client, name)
        is_orphan = not is_free and active_slots > len(holders)
        num_looks = num_looks + 1 if is_orphan and limit == seen else int(is_orphan)
        seen = limit
        if may_free(num_looks, own_id, [str(run.id) for run in waiting]):
            log.warning("%s %s was held by a run that is gone: freed", what, which)
            _make_anew(client, name)
            num_looks = 0
            continue
        whom = ", ".join(f"{run.name} ({run.id})" for run in holders)
        if whom and whom != told:
            log.info("waiting for %s %s: %s", what, which, whom)
            told = whom
        time.sleep(LOOK_AGAIN_S)


def _make(client: SyncPrefectClient, name: str) -> None:
    """Make this limit, if there is none."""
    # Another run may make it at this moment.
    with contextlib.suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(name, 1)


def _make_anew(client: SyncPrefectClient, name: str) -> None:
    """Put a limit that nobody holds in the place of this one.

    Prefect takes the slot of a run that is gone back when its lease ends, minutes later, whoever then holds it. The
    lease names the limit by its id, which the new one has not.
    """
    with contextlib.suppress(ObjectNotFound):
        client.delete_global_concurrency_limit_by_name(name)
    _make(client, name)


def _limit(client: SyncPrefectClient, name: str) -> tuple[str, int]:
    """The id of this limit, another one each time it is made anew, and how many slots are taken, whoever took them."""
    try:
        limit = client.read_global_concurrency_limit_by_name(name)
        return str(limit.id), int(limit.active_slots)
    except ObjectNotFound:
        # Another run makes it anew, or ended before it had done so.
        _make(client, name)
        return "", 0


def wiki_host(recipe: Recipe) -> str:
    """The host that a scrape of this recipe asks most."""
    return urlsplit(recipe.source.wiki).netloc or "addresses"


def tag_of(dataset: str) -> str:
    """The tag of every run on this dataset, by which the UI finds them."""
    return f"dataset:{dataset}"


def tags_of(dataset: str) -> tuple[str, ...]:
    """All tags of a run on this dataset."""
    return OURS, tag_of(dataset)


def tag_run(dataset: str) -> None:
    """Tag this flow run with its dataset."""
    if runtime.flow_run.id:
        with get_client(sync_client=True) as client:
            tags = {*(runtime.flow_run.tags or ()), *tags_of(dataset)}
            client.update_flow_run(runtime.flow_run.id, tags=sorted(tags))


def _took(slot: contextlib.ExitStack, name: str) -> bool:
    """Take a slot of this limit, if one is free, until `slot` is closed."""
    # Strict: one that is made anew is missing for a moment, which is no leave to go on. But a server that is away for a
    # moment must not end a training of days.
    held = concurrency(name, occupy=1, max_retries=0, strict=True, raise_on_lease_renewal_failure=False)
    try:
        slot.enter_context(held)
    except ConcurrencySlotAcquisitionError as error:
        refused = error.__cause__
        is_missing = refused is None
        is_taken = isinstance(refused, httpx.HTTPStatusError) and refused.response.status_code == httpx.codes.LOCKED
        if is_missing or is_taken:
            return False
        raise
    return True


def _holders_and_waiting(client: SyncPrefectClient, name: str) -> tuple[list[FlowRun], list[FlowRun]]:
    """The other living runs that hold a slot of this limit, and those that wait, as far as can be seen from here."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[OURS]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=MAY_HOLD)),
        )
    )
    others = [run for run in runs if str(run.id) != runtime.flow_run.id]
    return [run for run in others if _says(run, name, HOLDS)], [run for run in others if _says(run, name, WAITS)]


def _says(run: FlowRun, name: str, word: str) -> bool:
    """Whether this run says that it waits for this limit, or holds it, and its process may live."""
    its_word, _, process = str(run.labels.get(name) or "").partition(" ")
    return its_word == word and not is_gone(process)


def _label(client: SyncPrefectClient, name: str, text: str) -> None:
    if runtime.flow_run.id:
        client.update_flow_run_labels(runtime.flow_run.id, {name: text})


def _forget(name: str) -> None:
    """Take back what this run said of a limit."""
    # The work is done: a server that is away just now must not spoil it.
    with contextlib.suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
        _label(client, name, "")
