"""What Prefect costs: the same stages as library calls, as a flow run, and where nothing changed.

    python benchmarks/orchestration.py [--quick] [--idle-runs N] [--json]

A lake of the demo is made by library calls (`sp-data run --no-prefect --until verify`) and another one by a flow run on
a real Prefect server that is running already; each command is a process of its own, imports included.

    flow_over_library    seconds of the flow run over those of the library
    extra_seconds        the difference
    unchanged_local_s    `sp-data run` where nothing changed, without a server
    unchanged_server_s   a run of the deployment dataset/demo where nothing changed: from the request to its end
    database_kb_a_run    growth of the server's database by one such run (SQLite's pages in use)

The floor of unchanged_local_s is `python -c 'import sp_data.wiki.scrape'` and one request to the wiki; that of
unchanged_server_s a worker's start of a process and its import of Prefect.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
LOCAL_RUNS = 3
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 kids instead of 1,600")
    parser.add_argument("--idle-runs", type=int, default=3, help="unchanged runs on the server; default: 3")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kids = ["--set", f"source.demo.num_kids={100 if args.quick else 1600}", "--set", "shard.samples_per_shard=100"]
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as temporary:
        figures = measure(Path(temporary), kids, args.idle_runs)
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<20} {value:8.2f}")


def measure(folder: Path, kids: list[str], num_idle: int) -> dict[str, float]:
    """All figures."""
    home = environment(folder / "home")
    library_s = timed(folder, home, "run", "demo", *kids, "--until", "verify", "--no-prefect", "--lake", "library")
    with server(folder) as api:
        at_server = {**home, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        flow_s = timed(folder, at_server, "run", "demo", *kids, "--until", "verify", "--lake", "flow")
        local_s = [
            timed(folder, home, "run", "demo", "--until", "verify", "--lake", "library") for _ in range(LOCAL_RUNS)
        ]
        timed(folder, at_server, "deploy", "demo", "--lake", "flow")
        with worker(folder, at_server):
            # The first run of a worker compiles and caches what the others find.
            idle_run(api)
            before = database_bytes(folder)
            server_s = [idle_run(api) for _ in range(num_idle)]
            # The server writes a run's events some seconds after its end.
            time.sleep(10)
            grown = database_bytes(folder) - before
    return {
        "flow_over_library": flow_s / library_s,
        "extra_seconds": flow_s - library_s,
        "seconds_library": library_s,
        "seconds_flow": flow_s,
        "unchanged_local_s": statistics.median(local_s),
        "unchanged_server_s": statistics.median(server_s),
        "database_kb_a_run": grown / 1000 / num_idle,
    }


def environment(home: Path) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    off = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**base, "PREFECT_HOME": str(home), **off}


def timed(folder: Path, home: dict[str, str], *arguments: str) -> float:
    """Seconds that a command takes."""
    began = time.monotonic()
    command = [str(BIN / "sp-data"), *arguments, "--quiet"]
    process = subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {process.stderr[-2000:]}")
    return time.monotonic() - began


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A Prefect server with a database of its own; gives the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    process = started([str(BIN / "prefect"), "server", "start"], folder, {**environment(folder / "server"), **where})
    api = f"http://127.0.0.1:{port}/api"
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{api}/health", timeout=5).close()
                break
            if process.poll() is not None:
                raise SystemExit("the Prefect server ended")
            time.sleep(0.5)
        yield api
    finally:
        ended(process)


@contextlib.contextmanager
def worker(folder: Path, home: dict[str, str]) -> Iterator[None]:
    process = started([str(BIN / "prefect"), "worker", "start", "--pool", "sp-data"], folder, home)
    try:
        yield
    finally:
        ended(process)


def started(command: list[str], folder: Path, home: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, cwd=folder, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


def idle_run(api: str) -> float:
    """Seconds from the request for a run of dataset/demo to its end, in which nothing changed."""
    deployment = call(f"{api}/deployments/name/dataset/demo")
    began = time.monotonic()
    run = call(f"{api}/deployments/{deployment['id']}/create_flow_run", {"parameters": {}})
    while (state := call(f"{api}/flow_runs/{run['id']}")["state"])["type"] not in ENDED:
        time.sleep(0.2)
    if state["name"] != "Unchanged":
        raise SystemExit(f"dataset/demo ended as {state['name']}: {state['message']}")
    return time.monotonic() - began


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """The answer; a server whose SQLite is busy (503) is asked again, as Prefect's client does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(1)


def database_bytes(folder: Path) -> int:
    """Bytes of the pages in use: the file itself grows in steps, and beside it lies a log."""
    with contextlib.closing(sqlite3.connect(folder / "server" / "prefect.db")) as database:
        (page_bytes,) = database.execute("pragma page_size").fetchone()
        (pages,) = database.execute("pragma page_count").fetchone()
        (free,) = database.execute("pragma freelist_count").fetchone()
    return int(page_bytes * (pages - free))


if __name__ == "__main__":
    main()
