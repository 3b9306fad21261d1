"""From a change to a picture: the events that start a fine-tuning and the drawing after it, and the approval between.

sp-data.dataset.changed   a run published a new verified dataset
sp-data.finetune.due      ... and the recipe's `follow_up` asks for a fine-tuning now
sp-data.finetune.done     a fine-tuning published new checkpoints

Each is about the resource `sp-data.dataset.NAME`, and its payload has the dataset, the lake, the digest, how many
pictures came and went, and the reason in words. `sp-data deploy` makes the automations that listen. A dataset is
announced once: its digest is kept in the lake, so a run that finds nothing new starts nothing.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from sp_data import manifest as manifests
from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.report.changes import change_markdown
from sp_data.training.dataset_change import DatasetChange, change_since_training, due
from tasks.stage import artifact_key
from tasks.summary import name_run

log = logging.getLogger("sp_data.tasks")

CHANGED, DUE, DONE = "sp-data.dataset.changed", "sp-data.finetune.due", "sp-data.finetune.done"
PLACE = "sp-data.place"
"""Label of the resource: where its dataset lies, so that one of the same name in another lake is told from it."""
ANNOUNCED = "follow_up.json"
"""File of the lake: {"digest": the dataset that a fine-tuning was last announced for}."""


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
    fine-tuning due, by their age.
    """
    verified = manifests.latest(lake, "verify")
    if verified is None:
        return ""
    if change is not None and change.num_changes:
        _emit(CHANGED, lake, change, str(change))
    since_training = change_since_training(lake, verified)
    is_due, reason = due(recipe, since_training, datetime.now(UTC))
    if not is_due:
        return f"no fine-tuning: {reason}"
    if _announced(lake) == since_training.digest:
        return "no fine-tuning: it was announced for this dataset before"
    _emit(DUE, lake, since_training, reason)
    # Written after the event: a kill between the two announces the same dataset twice, never not at all. A second
    # fine-tuning on one dataset finds that nothing is left to do.
    lake.write_bytes(ANNOUNCED, json.dumps({"digest": since_training.digest}).encode() + b"\n", durable=True)
    return f"fine-tuning is due: {reason}"


def announce_training(lake: Lake, verified: Manifest) -> None:
    """Tell the server that new checkpoints are there."""
    _emit(DONE, lake, DatasetChange(verified.digest, (), ()), "new checkpoints")


def wait_for_approval(recipe: Recipe, lake: Lake) -> None:
    """Show what came and went since the last fine-tuning and wait until someone approves it in the Prefect UI.

    Raises NotApproved; Prefect's FlowPauseTimeout if nobody answers in `follow_up.ask_days`.
    """
    verified = manifests.latest(lake, "verify")
    if verified is None:
        raise UsageError(f"dataset {lake.dataset!r} has no verified dataset yet; run {lake.command('run')} first")
    change = change_since_training(lake, verified)
    key = artifact_key(lake.dataset, "approval")
    create_markdown_artifact(
        key=key,
        markdown=change_markdown(lake, change),
        description=f"{lake.dataset}: {change} since the last fine-tuning; resume the run to approve",
    )
    log.info("waiting for an approval: %s since the last fine-tuning; resume this run in the UI", change)
    name_run(f"{lake.dataset} · waiting for approval, {change}")
    answer = pause_flow_run(
        wait_for_input=Approval.with_initial_data(
            description=f"**{lake.dataset}**: {change} since the last fine-tuning. "
            f"[What came and went](/artifacts/key/{key})"
        ),
        timeout=int(recipe.follow_up.ask_days * 86_400),
        poll_interval=2,
    )
    if answer.comment:
        log.info("comment: %s", answer.comment)
    if not answer.finetune:
        raise NotApproved
    log.info("approved")


def _emit(event: str, lake: Lake, change: DatasetChange, reason: str) -> None:
    payload: dict[str, Any] = {
        "dataset": lake.dataset,
        "recipe": lake.dataset,
        "lake": lake.url,
        "digest": change.digest,
        "added": len(change.added),
        "gone": len(change.gone),
        "reason": reason,
    }
    emit_event(
        event,
        {"prefect.resource.id": resource_of(lake.dataset), "prefect.resource.name": lake.dataset, PLACE: lake.root},
        payload=payload,
    )
    log.info("%s: %s", event, reason)


def _announced(lake: Lake) -> str | None:
    if not lake.exists(ANNOUNCED):
        return None
    try:
        return str(json.loads(lake.read_bytes(ANNOUNCED))["digest"])
    except (ValueError, KeyError, TypeError):
        return None
