"""Calls that whole-run tests share: the command, and Prefect's API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
QUICK = [
    "source.demo.num_kids=100",
    "shard.samples_per_shard=20",
    "prior.steps=60",
    "prior.batch_size=16",
    "prior.save_every=20",
    "decoder.steps=12",
    "decoder.batch_size=8",
    "decoder.save_every=4",
    "decoder.log_every=2",
    "decoder.sample_timesteps=8",
    "judge.num_prompts=4",
]


def environment(home: Path, **more: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**base, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", **more}


def run_demo(lake: Path, home: Path, *sets: str, **more: str) -> dict[str, Any]:
    settings = [part for setting in (*QUICK, *sets) for part in ("--set", setting)]
    command = [str(BIN / "sp-data"), "run", "demo", "--json", "--lake", str(lake), *settings]
    process = subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(address: str, path: str) -> Any:
    return _send(f"{address}{path}", "GET")


def post(address: str, path: str, body: dict[str, Any] | list[dict[str, Any]]) -> Any:
    return _send(f"{address}{path}", "POST", body)


def patch(address: str, body: dict[str, Any]) -> None:
    _send(address, "PATCH", body)


def put(address: str, body: dict[str, Any]) -> None:
    _send(address, "PUT", body)


def delete(address: str) -> None:
    _send(address, "DELETE", {})


def _send(address: str, method: str, body: dict[str, Any] | list[dict[str, Any]] | None = None) -> Any:
    """What it answers, if anything. A server whose database is busy (503) is asked again, as Prefect's client does."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, sent, {"Content-Type": "application/json"}, method=method)
    for seconds in (1, 2, 4, 8, None):
        try:
            # SQLite's writers wait for each other up to a minute before the server says 503.
            with urllib.request.urlopen(request, timeout=120) as response:
                answer = response.read()
                return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or seconds is None:
                raise
            time.sleep(seconds)
    return None


def wait_for(name: str, condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{name}: not within {seconds:.0f} s"
        time.sleep(0.5)
