"""A folder of a user's own with `recipes/`, deployed on the session's Prefect server, and a worker that runs there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from e2e.prefect_api import BIN, delete, environment, get, post, wait_for

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Place:
    """A user's folder and the server that it is deployed on."""

    folder: Path
    server: str
    environment: dict[str, str]

    @property
    def site(self) -> str:
        """The address of the UI."""
        return self.server.removesuffix("/api")

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run `sp-data` here; returns what it prints."""
        process = self._run(*arguments)
        assert process.returncode == code, process.stdout[-2000:] + process.stderr[-2000:]
        return process.stdout

    def refused(self, *arguments: str) -> str:
        """Run `sp-data` here, which refuses; returns the sentence that says why."""
        process = self._run(*arguments)
        assert process.returncode in (1, 2), process.stdout[-2000:] + process.stderr[-2000:]
        (sentence,) = process.stderr.splitlines()
        return sentence

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "sp-data"), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.server, f"/deployments/name/{name}")
        return found

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run as the form does; returns its id."""
        run = post(
            self.server,
            f"/deployments/{self.deployment(deployment)['id']}/create_flow_run",
            {"parameters": parameters},
        )
        return str(run["id"])

    def run_by_schedule(self, deployment: str) -> dict[str, Any]:
        """The run, after its end, that a schedule starts in some seconds; the schedule is removed again."""
        path = f"/deployments/{self.deployment(deployment)['id']}/schedules"
        before = self._scheduled(deployment)
        for _ in range(6):
            at = datetime.now(UTC) + timedelta(seconds=15)
            schedule = {"interval": 86_400, "anchor_date": at.isoformat(), "timezone": "UTC"}
            (made,) = post(self.server, path, [{"schedule": schedule, "active": True}])
            while datetime.now(UTC) < at + timedelta(seconds=3):
                time.sleep(0.5)
                if due := [run for run in self._scheduled(deployment) - before if run[1] <= at.isoformat()[:19]]:
                    ended = self.finished(due[0][0])
                    delete(f"{self.server}{path}/{made['id']}")
                    return ended
            # A server that is busy looked at the schedule too late: it goes by the next day. Once more.
            delete(f"{self.server}{path}/{made['id']}")
        raise AssertionError(f"the server makes no scheduled run of {deployment}")

    def _scheduled(self, deployment: str) -> set[tuple[str, str]]:
        """Runs that a schedule made, and the second at which they are to start."""
        query = {
            "deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        runs = post(self.server, "/flow_runs/filter", query)
        return {(str(run["id"]), str(run["expected_start_time"])[:19]) for run in runs if run["auto_scheduled"]}

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.server, f"/flow_runs/{run}")
        return found

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Runs of a deployment that were not made by a schedule, oldest first."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}}}
        found = post(self.server, "/flow_runs/filter", wanted)
        return sorted((run for run in found if not run["auto_scheduled"]), key=lambda run: str(run["created"]))

    def finished(self, run: str, seconds: float = 900) -> dict[str, Any]:
        """The run after its end."""
        wait_for(f"the end of run {run}", lambda: self.run(run)["state"]["type"] in ENDED, seconds)
        return self.run(run)

    def log(self, run: str) -> list[str]:
        lines = post(self.server, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return [str(line["message"]) for line in lines]

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        found = post(self.server, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact for artifact in found if artifact["key"]}


@contextlib.contextmanager
def worker(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of both queues in the user's folder."""
    process = subprocess.Popen(
        [str(BIN / "prefect"), "worker", "start", "--pool", "sp-data"],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def place_at(folder: Path, server: str, home: Path) -> Place:
    return Place(folder, server, environment(home, PREFECT_API_URL=server, PREFECT_WORKER_QUERY_SECONDS="1"))


def trainers(lake: Path, wait_s: float = 0.0) -> list[int]:
    """The ids of the processes that train in this lake."""
    time.sleep(wait_s)
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if "sp_data.training.worker" in line and str(lake) in line:
            pids.append(int(entry.name))
    return pids


def processes_of(run: str) -> list[int]:
    """The ids of the processes of a flow run."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"PREFECT__FLOW_RUN_ID={run}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
