"""A run that is ended in any way leaves no process behind; its temporary server serves that run alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from e2e.prefect_api import environment
from e2e.watched_run import watched_run

from flows import temporary_server

NAMESPACE = ["unshare", "--map-root-user", "--net"]
PARENT = """
import time
from flows.local_server import start_local_server
from flows.temporary_server import TemporaryServer
start_local_server()
server = TemporaryServer()
print(server.server_process.pid, server.port, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(prefect_home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started the temporary server, and prints the server's process and port."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment(prefect_home)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def _listens(port: int) -> list[str]:
    """The addresses, as /proc/net writes them, that listen at this port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port]


def test_the_temporary_server_serves_its_run_alone_and_dies_with_it(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    server, port = map(int, parent.stdout.readline().split())
    address = f"http://127.0.0.1:{port}/api"
    assert requests.get(f"{address}/health", timeout=10).json() is True
    assert _listens(port) == ["0100007F"]
    origin = {"Origin": "https://evil.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answers = [
        requests.get(f"{address}/health", headers=origin, timeout=10),
        requests.options(f"{address}/flow_runs/filter", headers=preflight, timeout=10),
        # What a browser sends of another site's page without asking first.
        requests.post(
            f"{address}/flow_runs/filter", data="{}", headers={**origin, "Content-Type": "text/plain"}, timeout=10
        ),
        requests.get(f"{address}/health", headers={"Host": f"evil.example:{port}"}, timeout=10),
        requests.get(f"{address}/health", headers={"Host": f"localhost:{port}", "Origin": "null"}, timeout=10),
    ]
    for answer in answers:
        assert answer.status_code == 403, answer.request.headers
        assert "access-control-allow-origin" not in answer.headers
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while _is_running(server):
        assert time.monotonic() < deadline, "the server has outlived the process that started it"
        time.sleep(0.1)
    assert _listens(port) == []


def test_a_child_of_a_parent_that_died_before_ends_at_once() -> None:
    command = "import sys, time; from sp_data.runtime.subprocesses import watch_parent; watch_parent(1); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", command], timeout=30).returncode == 1


@pytest.mark.proof
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_nothing_is_left_of_a_run_that_is_ended_at_any_stage(ending: int, prefect_home: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    stages = {
        "scrape": "originals/*/*",
        "shard": "shards/*.tar",
        "embed": "embeddings/*/*",
        "prior": "runs/prior-*/metrics*",
        "decoder": "runs/decoder-*/metrics*",
        "judge": "generated/*",
    }
    for stage, file in stages.items():
        with watched_run(lake, prefect_home) as run:
            run.wait_for(file)
            during = run.processes()
            assert any("tasks.server_process" in command for command in during.values()), during
            run.end(ending)
            assert not run.left(), (stage, run.said[-1000:])
            assert not run.asked(), stage
            if ending != signal.SIGKILL:
                assert run.process.returncode == 1
                assert "interrupted" in run.said.splitlines()[-1], (stage, run.said[-1000:])
    with watched_run(lake, prefect_home) as run:
        assert run.process.wait(300) == 0, run.said
        assert not run.left() and not run.asked()


@pytest.mark.proof
def test_the_demo_needs_no_network_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    if not shutil.which("ip") or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespace can be made here")
    script = Path(__file__).with_name("offline_run.py")
    done = subprocess.run([*NAMESPACE, sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["returncode"] == 0, seen["said"]
    assert (seen["listens"], seen["peers"]) == (["127.0.0.1"], ["127.0.0.1"])
    assert (seen["asked"], seen["left"]) == ("", [])


def test_the_server_s_process_is_ours() -> None:
    """Prefect's private method is the one that is replaced."""
    assert "_run_uvicorn_command" in vars(temporary_server.SubprocessASGIServer)
