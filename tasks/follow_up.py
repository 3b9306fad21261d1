"""From a change to a picture: the events that start a fine-tuning and the drawing after it, and the approval between.

sp-data.dataset.changed   a run published a new verified dataset
sp-data.finetune.due      ... and the recipe's `follow_up` asks for a fine-tuning now
sp-data.finetune.done     there are checkpoints by which the same prompts were not drawn yet

Each is about the resource `sp-data.dataset.NAME`, and its payload has the dataset, the lake, the digest, how many
pictures came and went, and the reason in words. `sp-data deploy` makes the automations that listen.

What is due is told again by each run until it is done: an event may be lost, and a fine-tuning may fail. It is not told
while a fine-tuning is on its way, nor for a dataset that someone refused.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import State, get_client, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import emit_event
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import filter_flow_run_input
from prefect.settings import get_current_settings
from prefect.states import Cancelled
from pydantic import Field

from sp_data import manifest as manifests
from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.report.changes import change_markdown
from sp_data.training.dataset_change import DatasetChange, change_since_training, due
from sp_data.training.decisions import decide, decided
from tasks.limits import tag_of
from tasks.stage import artifact_key
from tasks.summary import name_run

log = logging.getLogger("sp_data.tasks")

CHANGED, DUE, DONE = "sp-data.dataset.changed", "sp-data.finetune.due", "sp-data.finetune.done"
PLACE = "sp-data.place"
"""Label of the resource: where its dataset lies, so that one of the same name in another lake is told from it."""
ON_ITS_WAY = [StateType.SCHEDULED, StateType.PENDING]
AT_ONCE = timedelta(hours=1)
"""What a person's own schedule starts later is not on its way."""
MAY_BE_OLDER = [StateType.RUNNING, StateType.PAUSED]
"""A fine-tuning in these states began with the dataset as it was before."""


QUESTION = "approval-"
"""How the pause keys of runs begin that wait for an approval."""


class Approval(RunInput):
    """What the form of a run that waits for its approval asks."""

    finetune: bool = Field(True, title="Fine-tune now", description="No: the run ends, and the models stay as they are")
    comment: str = Field("", title="Comment", description="Written into the run's log")


class NotApproved(Exception):
    """Someone decided against a fine-tuning. Never leaves the flow."""


def resource_of(dataset: str) -> str:
    """The resource that all events of a dataset are about."""
    return f"sp-data.dataset.{dataset}"


def announce_change(recipe: Recipe, lake: Lake, change: DatasetChange | None) -> str:
    """Tell the server that the dataset changed, and that a fine-tuning is due if it is; returns what follows, in words.

    `change`: what came and went in this run; None: the dataset is as before. Changes of earlier runs may still make a
    fine-tuning due, by their age or because the one before failed.
    """
    verified = manifests.latest(lake, "verify")
    if verified is None:
        return ""
    if change is not None:
        _emit(CHANGED, lake, change, str(change))
    since_training = change_since_training(lake, verified)
    is_due, reason = due(recipe, since_training, datetime.now(UTC))
    if not is_due:
        if recipe.follow_up.finetune and not _runs_of("generate", lake, [*ON_ITS_WAY, *MAY_BE_OLDER]):
            # Its event, or the drawing itself, may have been lost.
            announce_training(lake)
        return f"no fine-tuning: {reason}"
    if decided(lake, "refused") == since_training.digest:
        return "no fine-tuning: someone decided against it for this dataset"
    states = ON_ITS_WAY if change is not None else [*ON_ITS_WAY, *MAY_BE_OLDER]
    if runs := _runs_of("finetune", lake, states):
        return f"no other fine-tuning: {runs[0].name} ({runs[0].id}) is on its way"
    _emit(DUE, lake, since_training, reason)
    return f"fine-tuning is due: {reason}"


def announce_training(lake: Lake) -> None:
    """Tell the server that there are checkpoints by which the fixed prompts were not drawn yet, if there are."""
    trained, verified = manifests.latest(lake, "decoder"), manifests.latest(lake, "verify")
    if trained is None or verified is None or decided(lake, "drawn") == trained.digest:
        return
    _emit(DONE, lake, DatasetChange(verified.digest, (), ()), "new checkpoints")


def note_drawn(lake: Lake, decoder_digest: str) -> None:
    """Keep in the lake that the fixed prompts were drawn by this decoder."""
    decide(lake, "drawn", decoder_digest)


def wait_for_approval(recipe: Recipe, lake: Lake) -> str:
    """Show what came and went since the last fine-tuning and wait until someone approves it in the Prefect UI.

    Returns the digest of the dataset that was approved. The first call for a dataset ends the process: nobody's worker
    waits with the run. Once the run is resumed the flow starts again, and the second call returns, also of a run that
    failed after its approval and is retried; if the dataset is another one by then, that is asked about. A run that
    asked before about this dataset is ended.

    Raises NotApproved. Prefect fails a run of which nobody said anything for `follow_up.ask_days`.
    """
    verified = manifests.latest(lake, "verify")
    if verified is None:
        raise UsageError(f"dataset {lake.dataset!r} has no verified dataset yet; run {lake.command('run')} first")
    change = change_since_training(lake, verified)
    question = f"{QUESTION}{change.digest[:16]}"
    answer = _answer_to(question)
    if answer is None:
        artifact = artifact_key(lake.dataset, "approval")
        create_markdown_artifact(
            key=artifact,
            markdown=change_markdown(lake, change),
            description=f"{lake.dataset}: {change} since the last fine-tuning; resume the run to approve",
        )
        _end_older(lake)
        log.info("waiting for an approval: %s since the last fine-tuning; resume this run in the UI", change)
        name_run(f"{lake.dataset} · waiting for approval, {change}")
        answer = suspend_flow_run(
            wait_for_input=Approval.with_initial_data(
                description=f"**{lake.dataset}**: {change} since the last fine-tuning. "
                f"[What came and went](/artifacts/key/{artifact})"
            ),
            timeout=int(recipe.follow_up.ask_days * 86_400),
            # Prefect takes a key once a run. A question that nobody answered is asked again when the run is retried.
            key=f"{question}-{runtime.flow_run.run_count}",
        )
    if answer.comment:
        log.info("comment: %s", answer.comment)
    if not answer.finetune:
        decide(lake, "refused", change.digest)
        name_run(f"{lake.dataset} · not approved, {change}")
        raise NotApproved
    log.info("approved")
    name_run(f"{lake.dataset} · approved, {change}")
    return change.digest


def _answer_to(question: str) -> Approval | None:
    """What someone answered this run; None: nobody did."""
    inputs = filter_flow_run_input(key_prefix=f"suspended-{question}-", limit=200)
    assert isinstance(inputs, list)  # no coroutine: a flow of ours is not async
    for given in inputs:
        if given.key.endswith("-response"):
            return Approval(**given.decoded_value)
    return None


def _end_older(lake: Lake) -> None:
    """Cancel the runs that asked before about this dataset."""
    with get_client(sync_client=True) as client:
        for run in _runs_of("finetune", lake, [StateType.PAUSED]):
            asked = str(run.state.state_details.pause_key or "") if run.state else ""
            if asked.startswith(QUESTION) and str(run.id) != runtime.flow_run.id:
                log.info("%s (%s) asked before about this dataset: cancelled", run.name, run.id)
                state: State = Cancelled(message=f"run {runtime.flow_run.id} asks about the dataset as it is now")
                client.set_flow_run_state(run.id, state)


def _runs_of(flow: str, lake: Lake, states: list[StateType]) -> list[FlowRun]:
    """Runs of a flow on this very dataset, in one of these states, without those that are to start much later."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[tag_of(lake.dataset)]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
            ),
        )
    soon = datetime.now(UTC) + AT_ONCE
    return [
        run
        for run in runs
        if Lake(str(run.parameters.get("lake", lake.url)), lake.dataset).root == lake.root
        and (run.next_scheduled_start_time is None or run.next_scheduled_start_time <= soon)
    ]


def _emit(event: str, lake: Lake, change: DatasetChange, reason: str) -> None:
    if get_current_settings().api.url is None:
        # A temporary server ends with this run: it has no automations.
        return
    payload: dict[str, Any] = {
        "dataset": lake.dataset,
        "recipe": lake.dataset,
        "lake": lake.url,
        "digest": change.digest,
        "added": len(change.added),
        "gone": len(change.gone),
        "recaptioned": len(change.recaptioned),
        "reason": reason,
    }
    emit_event(
        event,
        {"prefect.resource.id": resource_of(lake.dataset), "prefect.resource.name": lake.dataset, PLACE: lake.root},
        payload=payload,
    )
    log.info("%s: %s", event, reason)
