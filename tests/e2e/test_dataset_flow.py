"""The dataset flow as a user starts it: one command, a fresh Prefect home, then a real Prefect server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sp_data.road import DATASET_STAGES

BIN = Path(sys.executable).parent
SETTINGS = ["--set", "source.demo.num_kids=100", "--set", "shard.samples_per_shard=20"]


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", **more}


def run_demo(lake: Path, home: Path, **more: str) -> dict[str, Any]:
    command = [str(BIN / "sp-data"), "run", "demo", "--json", "--lake", str(lake), "--until", "verify", *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    lake = tmp_path_factory.mktemp("flow") / "lake"
    # A home that nobody has used: the migrations, and the traps of a first start, are part of what is tested.
    return run_demo(lake, tmp_path_factory.mktemp("prefect-home")), lake


def test_one_command_makes_a_verified_dataset(first_run: tuple[dict[str, Any], Path]) -> None:
    result, lake = first_run
    assert result["dataset"] == "demo"
    assert result["judge"] is None
    assert [stage["name"] for stage in result["stages"]] == list(DATASET_STAGES)
    assert {stage["state"] for stage in result["stages"]} == {"done"}
    for stage in result["stages"]:
        assert stage["in"] == stage["out"] + stage["dropped"]
    assert result["stages"][-1]["out"] >= 95
    page = Path(result["report"]).read_text("utf-8")
    assert Path(result["report"]).is_relative_to(lake)
    for reason in ("cut-off", "near-duplicate", "opted-out", "mime-not-wanted (image/svg+xml)"):
        assert reason in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://paper-kids.localhost", "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect-server")
    process = subprocess.Popen(
        [str(BIN / "prefect"), "server", "start"],
        env=environment(home, PREFECT_SERVER_API_HOST="127.0.0.1", PREFECT_SERVER_API_PORT=str(port)),
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


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_a_server_shows_an_artifact_a_stage_with_counts_and_pictures(
    server: str, first_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, lake = first_run
    result = run_demo(lake, tmp_path, PREFECT_API_URL=server)
    assert {stage["state"] for stage in result["stages"]} == {"unchanged"}
    runs = post(server, "/flow_runs/filter", {})
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"]
    found = {artifact["key"]: artifact for artifact in post(server, "/artifacts/filter", {})}
    assert found.keys() == {f"demo-{stage}" for stage in DATASET_STAGES} | {"demo-report"}
    for stage in DATASET_STAGES:
        markdown = found[f"demo-{stage}"]["data"]
        counts = next(one for one in result["stages"] if one["name"] == stage)
        assert f"| {counts['in']:,} | {counts['out']:,} | {counts['dropped']:,} |" in markdown
        assert "](data:image/jpeg;base64," in markdown
        assert len(markdown) < 400_000
    logs = post(server, "/logs/filter", {"limit": 200})
    assert any("scrape" in line["name"] for line in logs), "the library's own lines are in the run's log"
