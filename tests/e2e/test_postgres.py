"""A Prefect server on a real PostgreSQL: a worker makes the demo's dataset, and no password is written."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.deployed import Place, place_at, worker
from e2e.prefect_api import BIN, QUICK, answers, environment, free_port, wait_for
from postgres import Postgres, why_not

pytestmark = pytest.mark.proof


@dataclass(frozen=True, slots=True)
class Served:
    place: Place
    database: Postgres
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if reason := why_not():
        pytest.skip(reason)
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    log = folder / "server.log"
    with Postgres() as database, log.open("wb") as output:
        settings = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
        server = subprocess.Popen(
            [str(BIN / "prefect"), "server", "start"],
            env=environment(folder / "home", **settings, **database.settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}/api"
        try:
            wait_for("the server on PostgreSQL", lambda: answers(address) or server.poll() is not None, 180)
            assert server.poll() is None, log.read_text()[-3000:]
            (folder / "place").mkdir()
            yield Served(place_at(folder / "place", address, folder / "worker-home"), database, log)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.fixture(scope="module")
def ended(served: Served) -> dict[str, Any]:
    """A run of dataset/demo after its end."""
    served.place.command("deploy", "demo")
    with worker(served.place):
        return served.place.finished(served.place.start("dataset/demo", set=QUICK))


def test_a_worker_makes_a_dataset(served: Served, ended: dict[str, Any]) -> None:
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]
    assert "demo-summary" in served.place.artifacts(ended["id"])
    assert "unchanged" in served.place.command("deploy", "demo")
    assert not list(served.place.folder.parent.rglob("prefect.db")), "the records are in PostgreSQL"


def test_the_password_is_written_nowhere(served: Served, ended: dict[str, Any]) -> None:
    dump, password = served.database.dump(), served.database.password
    assert ended["id"] in dump, "the dump holds the runs, their logs and their artifacts"
    assert password not in dump
    assert password not in served.log.read_text()
    files = [path for path in served.place.folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if password.encode() in path.read_bytes()]
