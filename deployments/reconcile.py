"""What a Prefect server has beside what is wanted: make it so, or say what differs.

Twice changes nothing. What a person paused stays paused, and a schedule stays as a person made it unless another one is
asked for; what `sp-data deploy` did not make is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient

from deployments.wanted import GPU_QUEUE, POOL, Wanted, WantedAutomation, WantedDeployment
from sp_data.errors import StageError
from tasks.limits import tags_of

Action = Literal["made", "changed", "removed", "unchanged"]


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be done, to one object. `fields`: those that differed."""

    kind: Literal["pool", "queue", "deployment", "schedule", "automation"]
    name: str
    action: Action
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        fields = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.action} {self.kind} {self.name}{fields}"

    @property
    def difference(self) -> str:
        """What a check calls that which would be done."""
        return {"made": "missing", "changed": "differs", "removed": "surplus"}.get(self.action, self.action)

    def as_difference(self) -> str:
        """What a check says, which did nothing."""
        fields = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.difference}: {self.kind} {self.name}{fields}"


class Reconciler:
    """One server. `dry`: nothing is written."""

    def __init__(self, client: SyncPrefectClient, *, dry: bool = False) -> None:
        self._client, self._dry = client, dry

    def apply(self, wanted: Wanted) -> list[Change]:
        """Make the server's objects as they are wanted.

        Raises StageError if the server refuses, or no longer answers.
        """
        changes = [*self._pool(), *self._queue()]
        for deployment in wanted.deployments:
            changes += self._deployment(deployment)
        changes += [self._automation(automation) for automation in wanted.automations]
        return changes

    def crons(self, full_name: str) -> tuple[str, ...]:
        """The crons of a deployment's active schedules, whoever made them; none where there is no such deployment."""
        deployment = self._find("GET", f"/deployments/name/{full_name}") or {"schedules": []}
        crons = [schedule["schedule"].get("cron") for schedule in deployment["schedules"] if schedule["active"]]
        return tuple(cron for cron in crons if cron)

    def remove(self, datasets: Iterable[str]) -> list[Change]:
        """Remove the deployments and automations of these datasets; the pool stays, for other datasets.

        Raises StageError if the server refuses, or no longer answers.
        """
        changes = []
        for dataset in datasets:
            for deployment in self._tagged("deployments", dataset):
                self._write("DELETE", f"/deployments/{deployment['id']}")
                name = f"{deployment['entrypoint'].split('.')[-1]}/{deployment['name']}"
                changes.append(Change("deployment", name, "removed"))
            for automation in self._tagged("automations", dataset):
                self._write("DELETE", f"/automations/{automation['id']}")
                changes.append(Change("automation", automation["name"], "removed"))
        return changes

    def _tagged(self, kind: Literal["deployments", "automations"], dataset: str) -> list[dict[str, Any]]:
        """All objects of a dataset. The server gives one page of them at a time, 200 unless its settings say else."""
        query = {kind: {"tags": {"all_": tags_of(dataset)}}}
        objects: list[dict[str, Any]] = []
        while page := self._send("POST", f"/{kind}/filter", {**query, "offset": len(objects)}):
            objects += page
        return objects

    def _pool(self) -> Iterator[Change]:
        if self._find("GET", f"/work_pools/{POOL}") is None:
            self._write("POST", "/work_pools/", {"name": POOL, "type": "process"})
            yield Change("pool", POOL, "made")

    def _queue(self) -> Iterator[Change]:
        queue = self._find("GET", f"/work_pools/{POOL}/queues/{GPU_QUEUE}")
        if queue is None:
            self._write("POST", f"/work_pools/{POOL}/queues/", {"name": GPU_QUEUE, "concurrency_limit": 1})
            yield Change("queue", GPU_QUEUE, "made")
        elif queue["concurrency_limit"] is None:
            # A person's own number, for several GPUs, is left alone.
            self._write("PATCH", f"/work_pools/{POOL}/queues/{GPU_QUEUE}", {"concurrency_limit": 1})
            yield Change("queue", GPU_QUEUE, "changed", ("concurrency_limit",))

    def _deployment(self, wanted: WantedDeployment) -> Iterator[Change]:
        existing = self._find("GET", f"/deployments/name/{wanted.full_name}")
        if existing is None:
            flow = self._write("POST", "/flows/", {"name": wanted.flow})
            schedules = [_schedule(wanted.cron)] if wanted.cron else []
            if flow is not None:
                body = {"name": wanted.name, "flow_id": flow["id"], **wanted.fields, "schedules": schedules}
                self._write("POST", "/deployments/", body)
            yield Change("deployment", wanted.full_name, "made")
            return
        differing = tuple(name for name, value in wanted.fields.items() if not _covers(existing.get(name), value))
        if differing:
            # Without `schedules`, which the server then leaves alone.
            self._write("PATCH", f"/deployments/{existing['id']}", wanted.fields)
        yield Change("deployment", wanted.full_name, "changed" if differing else "unchanged", differing)
        if wanted.replaces_crons and wanted.cron:
            yield from self._replace_crons(wanted.full_name, existing, wanted.cron)

    def _replace_crons(self, full_name: str, existing: dict[str, Any], cron: str) -> Iterator[Change]:
        """Let `cron` be the only cron of a deployment; its schedules by interval or calendar rule are a person's."""
        path = f"/deployments/{existing['id']}/schedules"
        replaceable = [schedule for schedule in existing["schedules"] if "cron" in schedule["schedule"]]
        kept = [schedule for schedule in replaceable if _covers(schedule["schedule"], _schedule(cron)["schedule"])][:1]
        for schedule in replaceable:
            if schedule not in kept:
                self._write("DELETE", f"{path}/{schedule['id']}")
                yield Change("schedule", f"{full_name} {schedule['schedule']['cron']}", "removed")
        if not kept:
            # What was paused stays paused.
            is_active = all(schedule["active"] for schedule in replaceable)
            self._write("POST", path, [{**_schedule(cron), "active": is_active}])
            yield Change("schedule", f"{full_name} {cron}", "made")

    def _automation(self, wanted: WantedAutomation) -> Change:
        fields = {"name": wanted.name, **wanted.fields}
        if wanted.deployment:
            deployment = self._find("GET", f"/deployments/name/{wanted.deployment}")
            # Only a dry run has none yet.
            ids = {"deployment_id": deployment["id"] if deployment else None}
            fields["actions"] = [{**action, **ids} for action in fields["actions"]]
        namesakes = self._send("POST", "/automations/filter", {"automations": {"name": {"any_": [wanted.name]}}})
        for double in namesakes[1:]:
            self._write("DELETE", f"/automations/{double['id']}")
        if not namesakes:
            self._write("POST", "/automations/", fields)
            return Change("automation", wanted.name, "made")
        existing = namesakes[0]
        # Whether it is enabled is a person's decision.
        fields["enabled"] = existing["enabled"]
        differing = tuple(name for name, value in fields.items() if not _covers(existing.get(name), value))
        if differing:
            self._write("PUT", f"/automations/{existing['id']}", fields)
        return Change("automation", wanted.name, "changed" if differing else "unchanged", differing)

    def _write(self, method: str, path: str, body: Any = None) -> Any:
        return None if self._dry else self._send(method, path, body)

    def _find(self, method: str, path: str) -> Any:
        return self._send(method, path, none_for_404=True)

    def _send(self, method: str, path: str, body: Any = None, *, none_for_404: bool = False) -> Any:
        try:
            response = self._client.request(method, path, json=body)  # type: ignore[arg-type]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404 and none_for_404:
                return None
            raise StageError(
                f"the Prefect server refuses {method} {path}: HTTP {error.response.status_code} "
                f"{error.response.text[:300]}"
            ) from error
        except httpx.HTTPError as error:
            raise StageError(
                f"the Prefect server no longer answers ({method} {path}: {error or type(error).__name__}); run the "
                "same command again: what is done already stays as it is"
            ) from error
        return response.json() if response.content else {}


def _schedule(cron: str) -> dict[str, Any]:
    return {"schedule": {"cron": cron, "timezone": "UTC", "day_or": True}, "active": True}


def _covers(found: Any, wanted: Any) -> bool:
    """Whether what the server has says what is wanted; it adds defaults of its own, and changes the order of sets."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_covers(found.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) == len(found) and all(map(_covers, found, wanted)):
            return True
        return all(isinstance(item, str) for item in [*wanted, *found]) and sorted(wanted) == sorted(found)
    if isinstance(wanted, int | float) and not isinstance(wanted, bool) and isinstance(found, int | float):
        return float(found) == float(wanted)
    return bool(found == wanted)
