"""Fixtures for whole runs.

server       (session) address of a real Prefect server on loopback, with a home of its own
api          the same, named by this process's settings: for calls of our own tasks and flows
prefect_home (session) a home of Prefect's for temporary servers: its migrations take a while the first time
first_run    (session) the output of `sp-data run demo --json` for a quick demo, and the lake it made
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.prefect_api import BIN, answers, environment, run_demo
from prefect.settings import PREFECT_API_URL, temporary_settings


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A new one: the migrations and the pitfalls of a first start are tested too.
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> tuple[dict[str, Any], Path]:
    lake = tmp_path_factory.mktemp("flow") / "lake"
    return run_demo(lake, prefect_home), lake


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect-server")
    process = subprocess.Popen(
        [str(BIN / "prefect"), "server", "start"],
        env=environment(
            home,
            PREFECT_SERVER_API_HOST="127.0.0.1",
            PREFECT_SERVER_API_PORT=str(port),
            # A new schedule's first run is made by the second round at the latest; by default there is one a minute.
            PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="5",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 180
        while not answers(address):
            assert time.monotonic() < deadline, "the Prefect server did not start within 180 s"
            assert process.poll() is None, "the Prefect server ended"
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def api(server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: server}):
        yield server
