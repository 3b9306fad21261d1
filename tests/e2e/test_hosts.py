"""Four hosts and an operator, each alone in a network: S3, Prefect's server, a worker, a worker for trainings.

The lake lies on S3. A dataset is made on one host, the fine-tuning that follows by itself runs on another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from e2e.deployed import Place
from e2e.prefect_api import BIN, QUICK, answers, environment, wait_for
from hosts import Hosts, why_not
from s3_server import CREDENTIALS

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]


@dataclass(frozen=True, slots=True)
class Net:
    hosts: Hosts
    place: Place
    logs: dict[str, Path]
    """What each service printed."""
    store: Any


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    if reason := why_not():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("hosts")
    with Hosts(("s3", "server", "cpu", "gpu", "operator"), base, base / "srv") as hosts:
        s3, api = f"http://{hosts.addresses['s3']}:9000", f"http://{hosts.addresses['server']}:4200/api"
        keys = {**CREDENTIALS, "AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1", "OMP_NUM_THREADS": "1"}

        def of_host(name: str, **more: str) -> dict[str, str]:
            return environment(base / f"{name}-home", PREFECT_API_URL=api, PREFECT_WORKER_QUERY_SECONDS="1", **more)

        listen = {"PREFECT_SERVER_API_HOST": hosts.addresses["server"], "PREFECT_SERVER_API_PORT": "4200"}
        server = [str(BIN / "prefect"), "server", "start"]
        worker = [str(BIN / "prefect"), "worker", "start", "--pool", "sp-data", "--type", "process", "--work-queue"]
        logs = {
            "s3": hosts.start(
                "s3", [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "9000"], of_host("s3")
            ),
            "server": hosts.start("server", server, of_host("server", **listen)),
        }
        # From here on this process is the operator's.
        with hosts.entered("operator"):
            place = Place(hosts.own, api, of_host("operator", **keys))
            wait_for("the server", lambda: answers(api), 180)
            options = {"endpoint_url": s3, "region_name": "us-east-1"}
            store = fsspec.filesystem("s3", key="tests", secret="tests", client_kwargs=options)
            store.call_s3("create_bucket", Bucket="lake")
            place.command("deploy", "demo", "--lake", "s3://lake/of/all")
            # Runs work in the folder of the same name on their own host.
            logs["cpu"] = hosts.start("cpu", [*worker, "default", "--name", "cpu"], of_host("cpu", **keys))
            logs["gpu"] = hosts.start("gpu", [*worker, "gpu", "--limit", "1", "--name", "gpu"], of_host("gpu", **keys))
            yield Net(hosts, place, logs, store)


@pytest.fixture(scope="module")
def runs(net: Net) -> dict[str, dict[str, Any]]:
    """A run of the dataset, and those that followed by themselves, after their ends."""
    place = net.place
    ended = {"dataset": place.finished(place.start("dataset/demo", set=QUICK), 500)}
    for flow in ("finetune", "generate"):
        wait_for(f"a run of {flow}", lambda flow=flow: place.runs_of(f"{flow}/demo"), 90)
        ended[flow] = place.finished(place.runs_of(f"{flow}/demo")[0]["id"], 600)
    return ended


def test_a_change_leads_to_pictures_across_hosts(net: Net, runs: dict[str, dict[str, Any]]) -> None:
    assert runs["dataset"]["state"]["name"].startswith("Changed: +"), net.place.log(runs["dataset"]["id"])
    assert runs["finetune"]["state"]["name"].startswith("Done: prior, decoder"), net.place.log(runs["finetune"]["id"])
    assert runs["generate"]["state"]["type"] == "COMPLETED", net.place.log(runs["generate"]["id"])


def test_each_run_was_on_the_host_of_its_queue(net: Net, runs: dict[str, dict[str, Any]]) -> None:
    said = {name: net.logs[name].read_text() for name in ("cpu", "gpu")}
    for flow, host in {"dataset": "cpu", "finetune": "gpu", "generate": "gpu"}.items():
        assert [name for name in said if runs[flow]["id"] in said[name]] == [host], flow


def test_the_lake_is_on_s3_and_no_host_kept_a_part(net: Net, runs: dict[str, dict[str, Any]]) -> None:
    names = net.store.find("lake/of/all/demo")
    assert [name for name in names if name.endswith(".tar")]
    assert [name for name in names if name.endswith(".safetensors") or "checkpoint" in name]
    for host in ("cpu", "gpu"):
        kept = [
            path for path in (net.hosts.folder / host).rglob("*") if path.suffix in (".tar", ".npy", ".safetensors")
        ]
        assert not kept, host


def test_no_host_reaches_further_than_the_switch(net: Net) -> None:
    for name in net.hosts.addresses:
        assert len(net.hosts.routes(name).splitlines()) == 1
