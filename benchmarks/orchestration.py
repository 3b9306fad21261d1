"""What Prefect costs: the same stages as library calls, as a flow run, and where nothing changed.

    python benchmarks/orchestration.py [--quick] [--idle-runs N] [--json]

A lake of the demo is made by library calls (`sp-data run --no-prefect --until verify`) and another one by a flow run on
a real Prefect server that is running already; each command is a process of its own, imports included.

    flow_over_library    seconds of the flow run over those of the library
    extra_seconds        the difference
    unchanged_local_s    `sp-data run` where nothing changed, without a server
    unchanged_server_s   a run of the deployment dataset/demo where nothing changed: from the request to its end
    empty_server_s       ... a run of a flow that does nothing, on the same pool: Prefect's floor
    database_kb_a_run    growth of the server's database by one run where nothing changed (SQLite's pages in use)
    lasting_kb_a_run     ... without the events, which the server removes after seven days
    empty_kb_a_run       growth by a run of the flow that does nothing: Prefect's floor
    import_s             floor of unchanged_local_s: `python -c 'import sp_data.wiki.scrape'`
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
LOCAL_RUNS = 3
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 kids instead of 1,600")
    parser.add_argument("--idle-runs", type=int, default=3, help="runs of each kind on the server; default: 3")
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
    # A fine-tuning that a change starts would run beside what is measured.
    sets = [*kids, "--set", "follow_up.finetune=false"]
    library_s = timed(folder, home, "run", "demo", *sets, "--until", "verify", "--no-prefect", "--lake", "library")
    import_s = median_of(LOCAL_RUNS, lambda: seconds_of([sys.executable, "-c", "import sp_data.wiki.scrape"], folder))
    with server(folder) as api:
        at_server = {**home, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        flow_s = timed(folder, at_server, "run", "demo", *sets, "--until", "verify", "--lake", "flow")
        local_s = median_of(
            LOCAL_RUNS, lambda: timed(folder, home, "run", "demo", "--until", "verify", "--lake", "library")
        )
        timed(folder, at_server, "deploy", "demo", "--lake", "flow")
        with worker(folder, at_server):
            deploy_empty_flow(folder, api)
            empty_s, empty = idle_runs(folder, api, "nothing/nothing", "Completed", num_idle)
            unchanged_s, unchanged = idle_runs(folder, api, "dataset/demo", "Unchanged", num_idle)
    return {
        "flow_over_library": flow_s / library_s,
        "extra_seconds": flow_s - library_s,
        "seconds_library": library_s,
        "seconds_flow": flow_s,
        "unchanged_local_s": local_s,
        "import_s": import_s,
        "unchanged_server_s": unchanged_s,
        "empty_server_s": empty_s,
        "database_kb_a_run": sum(unchanged.values()) / 1000,
        "lasting_kb_a_run": sum(grown for name, grown in unchanged.items() if "event" not in name) / 1000,
        "empty_kb_a_run": sum(empty.values()) / 1000,
    }


def idle_runs(folder: Path, api: str, deployment: str, state: str, num_runs: int) -> tuple[float, dict[str, float]]:
    """The median of the seconds of some runs, and the bytes by which each table and index grew with each of them."""
    # The first run of a worker compiles and caches what the others find.
    idle_run(api, deployment, state)
    before = settled_bytes(folder)
    seconds = median_of(num_runs, lambda: idle_run(api, deployment, state))
    after = settled_bytes(folder)
    return seconds, {name: (after[name] - before.get(name, 0)) / num_runs for name in after}


def median_of(num: int, measured: Callable[[], float]) -> float:
    return statistics.median(measured() for _ in range(num))


def environment(home: Path) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    off = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**base, "PREFECT_HOME": str(home), **off}


def timed(folder: Path, home: dict[str, str], *arguments: str) -> float:
    """Seconds that a command of ours takes."""
    return seconds_of([str(BIN / "sp-data"), *arguments, "--quiet"], folder, home)


def seconds_of(command: list[str], folder: Path, home: dict[str, str] | None = None) -> float:
    began = time.monotonic()
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


EMPTY_FLOW = """\
from prefect import flow


@flow
def nothing() -> None:
    pass
"""


def deploy_empty_flow(folder: Path, api: str) -> None:
    """On the pool and with as many tags as ours have."""
    (folder / "nothing.py").write_text(EMPTY_FLOW)
    flow = call(f"{api}/flows/", {"name": "nothing"})
    like = call(f"{api}/deployments/name/dataset/demo")
    taken = ("work_pool_name", "work_queue_name", "tags", "job_variables", "pull_steps")
    fields = {"name": "nothing", "flow_id": flow["id"], "entrypoint": "nothing.nothing"}
    call(f"{api}/deployments/", {**fields, **{name: like[name] for name in taken}})


def idle_run(api: str, name: str, state: str) -> float:
    """Seconds from the request for a run of a deployment to its end, in the state of this name."""
    deployment = call(f"{api}/deployments/name/{name}")
    began = time.monotonic()
    run = call(f"{api}/deployments/{deployment['id']}/create_flow_run", {"parameters": {}})
    while (ended_in := call(f"{api}/flow_runs/{run['id']}")["state"])["type"] not in ENDED:
        time.sleep(0.2)
    if ended_in["name"] != state:
        raise SystemExit(f"{name} ended as {ended_in['name']}: {ended_in['message']}")
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


def settled_bytes(folder: Path) -> dict[str, int]:
    """Bytes of the pages of each table and index, once they grow no more: a run's events are written after its end."""
    sizes: dict[str, int] = {}
    while True:
        time.sleep(5)
        with contextlib.closing(sqlite3.connect(folder / "server" / "prefect.db")) as database:
            now = dict(database.execute("select name, sum(pgsize) from dbstat group by name").fetchall())
        if now == sizes:
            return sizes
        sizes = now


if __name__ == "__main__":
    main()
