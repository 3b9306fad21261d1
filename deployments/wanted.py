"""The objects on a Prefect server that some datasets need, as its API takes them.

pool `sp-data`           of processes, with the queues `default` and `gpu`; the latter runs one at a time
deployments              a flow each for every dataset: dataset/southpark, finetune/southpark, …
automations              a change starts the fine-tuning, that starts the drawing; a run without a heartbeat is crashed;
                         a failure, and a dataset older than it should be, are told through a notification block
"""

from __future__ import annotations

import asyncio
import glob
import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from prefect.utilities.callables import parameter_schema

from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from tasks.follow_up import DONE, DUE, PLACE, resource_of
from tasks.limits import OURS, tag_of, tags_of
from tasks.summary import COMPLETED

POOL, GPU_QUEUE, QUEUE = "sp-data", "gpu", "default"
WEEKLY = "0 4 * * 1"
MONTHLY = "0 4 * * thu#1"
"""Not on the day of the weekly scrape: both write the dataset, and one would wait for the other."""
HEARTBEAT_S = 120
ZOMBIE_S = 4 * HEARTBEAT_S
"""A run that did not say for so long that it is alive is called crashed."""

DAY_S, YEAR_S = 86_400, 366 * 86_400
GAPS_LOOKED_AT = 100
"""Runs of a schedule: of a monthly one those of eight years."""
ANY_STATE = "prefect.flow-run.*"

ENVIRONMENT = {
    # The library's log lines belong in the run's log.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "sp_data",
    "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One dataset to deploy. `recipe`: the name that its runs are given, such as mywiki.yaml."""

    dataset: str
    recipe: str
    lake: str
    every: str | None = None
    """Cron of the re-scrape; None: as the server has it, and weekly for a deployment that is made now."""
    is_scheduled: bool = True
    crons_there: tuple[str, ...] = ()
    """Crons by which the server scrapes it again already."""

    @classmethod
    def of(cls, name: str, recipe: Recipe, lake: str, every: str | None) -> Target:
        """The demo, whose wiki never changes by itself, has no schedule."""
        return cls(recipe.name, name, lake, every, is_scheduled=recipe.source.demo is None)

    @property
    def crons(self) -> tuple[str, ...]:
        """The crons of the re-scrape after the deployment, as far as they are known; at least one."""
        return (self.every,) if self.every else self.crons_there or (WEEKLY,)


@dataclass(frozen=True, slots=True)
class FlowKind:
    """How one flow is deployed."""

    flow: str
    summary: str
    queue: str = QUEUE
    cron: str = ""
    """Of a deployment that is made now; empty: no schedule."""
    follows_every: bool = False
    """Whether the target's `every` takes the place of `cron`, and of what the server has."""


KINDS: tuple[FlowKind, ...] = (
    FlowKind(
        "dataset", "Scrape {place} again and update the dataset with what changed.", cron=WEEKLY, follows_every=True
    ),
    FlowKind("finetune", "Fine-tune prior and decoder on the verified dataset, if it changed.", GPU_QUEUE),
    FlowKind("generate", "Pictures from words, by the best checkpoints.", GPU_QUEUE),
    FlowKind("pipeline", "All stages in one run, from the wiki to pictures.", GPU_QUEUE),
    FlowKind("export", "The verified dataset for another trainer, in a folder."),
    FlowKind("upkeep", "Compact shards, remove what no manifest names, and old runs of the database.", cron=MONTHLY),
)


_TITLES = {"until": "Last stage", "set": "Set other fields", "changes": "Change"}
"""Of the forms' fields; the others are called as their parameters are."""


@dataclass(frozen=True, slots=True)
class WantedDeployment:
    """A deployment as `POST /deployments/` takes it, without the id of its flow."""

    flow: str
    name: str
    fields: dict[str, Any]
    cron: str | None
    """Of its schedule if it is made now; None: no schedule."""
    replaces_crons: bool = False
    """Whether `cron` was asked for, and takes the place of an existing deployment's crons. A person may have changed
    those, so they are else left alone."""

    @property
    def full_name(self) -> str:
        return f"{self.flow}/{self.name}"


@dataclass(frozen=True, slots=True)
class WantedAutomation:
    """An automation; `deployment`: what its action runs, by full name, whose id only the server knows."""

    name: str
    fields: dict[str, Any]
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that some targets need."""

    deployments: tuple[WantedDeployment, ...]
    automations: tuple[WantedAutomation, ...]


def wanted(targets: Sequence[Target], names: Iterable[str], folder: str, notify: str | None) -> Wanted:
    """What these targets need. `names`: further recipes that the forms offer. `folder`: where workers run.

    `notify`: the id of a notification block's document, if one is to be told of failures.
    """
    names = tuple(names)
    deployments = tuple(_deployment(kind, target, names, folder) for target in targets for kind in KINDS)
    automations = [automation for target in targets for automation in _automations(target, notify)]
    return Wanted(deployments, (*automations, zombies()))


def _deployment(kind: FlowKind, target: Target, names: tuple[str, ...], folder: str) -> WantedDeployment:
    flow = getattr(importlib.import_module(f"flows.{kind.flow}"), kind.flow)
    schema = parameter_schema(flow).model_dump_for_openapi()
    # Not the lake's other datasets, which have deployments of their own: each new one would be a drift of all others.
    offered = list(dict.fromkeys([*names, target.recipe, target.dataset]))
    schema["properties"]["recipe"] |= {"enum": offered, "default": target.recipe}
    schema["properties"]["lake"]["default"] = target.lake
    for name, field_schema in schema["properties"].items():
        field_schema["title"] = _TITLES.get(name, name.replace("_", " ").capitalize())
    every = target.every if kind.follows_every else None
    cron = (every or kind.cron or None) if target.is_scheduled else None
    fields = {
        "description": f"{kind.summary.format(place=target.dataset)}\n\n{(flow.description or '').strip()}",
        "entrypoint": f"flows.{kind.flow}.{kind.flow}",
        "tags": sorted({*tags_of(target.dataset), *({"gpu"} if kind.queue == GPU_QUEUE else ())}),
        "work_pool_name": POOL,
        "work_queue_name": kind.queue,
        "parameters": {"recipe": target.recipe, "lake": target.lake},
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
        # The run's own lines go to the server. Without a stream of output a run outlives a worker that is killed.
        "job_variables": {"env": ENVIRONMENT, "stream_output": False},
    }
    replaces_crons = target.is_scheduled and every is not None
    return WantedDeployment(kind.flow, target.dataset, fields, cron, replaces_crons=replaces_crons)


def _automations(target: Target, notify: str | None) -> Iterable[WantedAutomation]:
    # A dataset of the same name in another lake, of which this server is told too, is another dataset.
    of_dataset = {
        "prefect.resource.id": resource_of(target.dataset),
        PLACE: glob.escape(Lake(target.lake, target.dataset).root),
    }
    tag = tag_of(target.dataset)
    yield WantedAutomation(
        f"sp-data: fine-tune {target.dataset} when it changed",
        _automation(
            "A dataset that changed enough, as its recipe's `follow_up` says, is fine-tuned on.",
            _on(DUE, of_dataset),
            _run({"recipe": target.dataset, "lake": target.lake, "because": "{{ event.payload.reason }}"}),
            tag,
        ),
        f"finetune/{target.dataset}",
    )
    yield WantedAutomation(
        f"sp-data: draw {target.dataset} after a fine-tuning",
        _automation(
            "The same prompts before and after each fine-tuning.",
            _on(DONE, of_dataset),
            _run({"recipe": target.dataset, "lake": target.lake, "before_and_after": True}),
            tag,
        ),
        f"generate/{target.dataset}",
    )
    if notify is None:
        return
    tagged = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
    message = {"type": "send-notification", "block_document_id": notify}
    yield WantedAutomation(
        f"sp-data: tell of failed runs of {target.dataset}",
        _automation(
            "A run of this dataset failed or crashed.",
            {**_on(ANY_STATE, _ended_as("FAILED", "CRASHED")), "match_related": [tagged]},
            {
                **message,
                "subject": f"sp-data: a run of {target.dataset} failed",
                "body": "{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            },
            tag,
        ),
    )
    if target.is_scheduled:
        # Of several schedules the one that waits least: the others only add runs.
        days = math.ceil(2 * min(map(_longest_gap_or_year, target.crons)))
        old = f"No run of {target.dataset} that scrapes ended well for {days} days."
        yield WantedAutomation(
            f"sp-data: tell if {target.dataset} grows old",
            _automation(
                old,
                {
                    **_on(ANY_STATE, _ended_as("COMPLETED")),
                    "match_related": [
                        tagged,
                        {"prefect.resource.role": "flow", "prefect.resource.name": ["dataset", "pipeline"]},
                    ],
                    "posture": "Proactive",
                    "within": days * DAY_S,
                },
                {
                    **message,
                    "subject": f"sp-data: {target.dataset} is older than it should be",
                    "body": old,
                },
                tag,
            ),
        )


def longest_gap_days(cron: str) -> float:
    """The longest time between two runs of a schedule. Raises ValueError if it is no cron, or no day of it comes."""
    # Prefect's server, which reads crons, is a second of imports that only this needs.
    from prefect.server.schemas.schedules import CronSchedule

    start = datetime(2026, 1, 1, tzinfo=UTC)
    dates = asyncio.run(CronSchedule(cron=cron, timezone="UTC").get_dates(GAPS_LOOKED_AT, start=start))
    return max((later.timestamp() - earlier.timestamp() for earlier, later in pairwise(dates)), default=YEAR_S) / DAY_S


def _longest_gap_or_year(cron: str) -> float:
    """The same; a cron of a person's, of which no day comes, must not end a deploy."""
    try:
        return longest_gap_days(cron)
    except ValueError:
        return YEAR_S / DAY_S


def zombies() -> WantedAutomation:
    """The automation that ends runs of which nothing is heard: their worker and their process are gone."""
    return WantedAutomation(
        "sp-data: a run without a heartbeat crashed",
        _automation(
            f"A run that did not say for {ZOMBIE_S // 60} minutes that it is alive is set to Crashed.",
            {
                **_on("prefect.flow-run.heartbeat", {"prefect.resource.id": "prefect.flow-run.*"}),
                "after": ["prefect.flow-run.heartbeat"],
                "expect": [
                    "prefect.flow-run.heartbeat",
                    *(
                        f"prefect.flow-run.{state}"
                        for state in (*COMPLETED, "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
                    ),
                ],
                "match_related": [{"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{OURS}"}],
                "for_each": ["prefect.resource.id"],
                "posture": "Proactive",
                "within": ZOMBIE_S,
            },
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Crashed",
                "message": "nothing was heard of this run; start it again: it goes on where it was",
            },
        ),
    )


def _automation(description: str, trigger: dict[str, Any], action: dict[str, Any], *tags: str) -> dict[str, Any]:
    tagged = sorted({OURS, *tags})
    return {"description": description, "enabled": True, "trigger": trigger, "actions": [action], "tags": tagged}


def _on(event: str, match: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "event",
        "match": match,
        "expect": [event],
        "after": [],
        "for_each": [],
        "posture": "Reactive",
        "threshold": 1,
        "within": 0,
    }


def _ended_as(*state_types: str) -> dict[str, Any]:
    """Of runs that end in a state of these types, whatever its name."""
    return {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": list(state_types)}


def _run(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "run-deployment", "source": "selected", "parameters": parameters}


def check_targets(targets: Sequence[Target]) -> None:
    """Two recipes of one dataset would share its deployments. Raises UsageError."""
    seen: dict[str, str] = {}
    for target in targets:
        if other := seen.get(target.dataset):
            raise UsageError(f"{other} and {target.recipe} are both of dataset {target.dataset!r}: deploy one of them")
        seen[target.dataset] = target.recipe
