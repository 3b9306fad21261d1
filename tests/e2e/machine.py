"""A machine with a Prefect server, a worker and two deployed datasets, of which a test may kill each part."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml
from e2e.deployed import Place, place_at, processes_of
from e2e.prefect_api import BIN, answers, environment, get, patch, post, put, wait_for

from deployments.wanted import POOL, zombies
from sp_data.recipe import load_recipe

HEARTBEAT_S = 30
"""The least that Prefect takes."""
ZOMBIE_S = 75
LITTLE = ["source.demo.num_kids=100", "shard.samples_per_shard=20", "shard.processes=1", "follow_up.finetune=false"]
DATASETS = ("kids", "others")


class Machine:
    """Server and worker as processes of their own sessions; both are down at first."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.home = root / "home"
        self.folder = root / "folder"
        (self.folder / "recipes").mkdir(parents=True)
        for name in DATASETS:
            fields = load_recipe("demo", LITTLE).model_dump(mode="json") | {"name": name}
            (self.folder / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(fields))
        self.place: Place = place_at(self.folder, f"http://127.0.0.1:{self._port}/api", self.home)
        self._server: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start what is down."""
        if self._server is None or self._server.poll() is not None:
            self.start_server()
        if self._worker is None or self._worker.poll() is not None:
            self.start_worker()

    def start_server(self) -> None:
        self._server = subprocess.Popen(
            [str(BIN / "prefect"), "server", "start"],
            env=environment(self.home, PREFECT_SERVER_API_HOST="127.0.0.1", PREFECT_SERVER_API_PORT=str(self._port)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for("the server", lambda: answers(self.place.server), 180)

    def kill_server(self) -> None:
        _kill_group(self._server)
        self._server = None

    def start_worker(self) -> None:
        self._worker = subprocess.Popen(
            [str(BIN / "prefect"), "worker", "start", "--pool", POOL],
            cwd=self.folder,
            env=self.place.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill_worker(self) -> None:
        """The worker alone, as the kernel does that lacks memory."""
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait(30)
        self._worker = None

    def kill_run(self, run: str) -> None:
        """All processes of a flow run."""
        for process in processes_of(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def deploy(self) -> None:
        """Deploy both datasets as an operator does, with heartbeats that a test can wait for."""
        self.place.command("deploy", *(f"recipes/{name}.yaml" for name in DATASETS))
        for deployment in post(self.place.server, "/deployments/filter", {}):
            variables = deployment["job_variables"]
            variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(HEARTBEAT_S)
            patch(f"{self.place.server}/deployments/{deployment['id']}", {"job_variables": variables})
        wanted = zombies()
        for automation in post(self.place.server, "/automations/filter", {}):
            if automation["name"] == wanted.name:
                fields = {**wanted.fields, "name": wanted.name}
                fields["trigger"] = {**fields["trigger"], "within": ZOMBIE_S}
                put(f"{self.place.server}/automations/{automation['id']}", fields)

    def stop(self) -> None:
        _kill_group(self._worker, signal.SIGTERM)
        _kill_group(self._server, signal.SIGTERM)

    def slots(self, limit: str) -> int:
        found: dict[str, Any] = get(self.place.server, f"/v2/concurrency_limits/{limit}")
        return int(found["active_slots"])


class Dataset:
    """A dataset in a lake of its own."""

    def __init__(self, lake: Path, name: str = "kids") -> None:
        self.lake, self.name, self.folder = lake, name, lake / name

    def copy_to(self, lake: Path) -> Dataset:
        shutil.copytree(self.lake, lake)
        return Dataset(lake, self.name)

    def path_of(self, stage: str) -> Path:
        return self.folder / "manifests" / stage / "latest.json"

    def manifest(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path_of(stage).read_bytes())
        return found

    def wait_for(self, stage: str) -> dict[str, Any]:
        wait_for(f"{stage} of {self.folder}", self.path_of(stage).exists, 90)
        return self.manifest(stage)

    def digests(self) -> dict[str, str]:
        """Of every stage that is done."""
        stages = sorted(path.parent.name for path in self.folder.glob("manifests/*/latest.json"))
        return {stage: self.manifest(stage)["digest"] for stage in stages}


def _kill_group(process: subprocess.Popen[bytes] | None, number: int = signal.SIGKILL) -> None:
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(60)
