"""The systemd units on a booted Debian: a run that outlives its worker, faults, and what the journal says."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from booted import PROGRAMS, PYTHON, REPOSITORY, SHOWN, Booted, why_not
from e2e.deployed import Place
from e2e.prefect_api import QUICK, answers, free_port, wait_for

pytestmark = pytest.mark.proof
UNITS = REPOSITORY / "deployments" / "systemd"
SECRET = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Services:
    machine: Booted
    place: Place

    def property_of(self, unit: str, name: str) -> str:
        return self.machine.call("systemctl", "show", "--property", name, "--value", unit).strip()


def drop_in() -> str:
    """This repository in place of an installed package; the rest of the units is as it is shipped."""
    lines = ["[Service]", f"Environment=PYTHONPATH={SHOWN} PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1"]
    if any(str(path).startswith(("/root/", "/home/")) for path in PYTHON):
        lines.append("ProtectHome=no")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Both units, installed as docs/operations.md says, with the paths of this machine, and started."""
    if reason := why_not():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("services")
    # Below a folder that another user may enter.
    handed_in = Path("/var/tmp") / f"sp-data-{secrets.token_hex(4)}"
    handed_in.mkdir()
    port = free_port()
    settings = {
        "server.env": (UNITS / "server.env").read_text().replace("API_PORT=4200", f"API_PORT={port}"),
        "worker.env": (UNITS / "worker.env")
        .read_text()
        .replace("127.0.0.1:4200", f"127.0.0.1:{port}")
        .replace("#AWS_SECRET_ACCESS_KEY=", f"AWS_SECRET_ACCESS_KEY={SECRET}"),
    }
    for name, text in settings.items():
        (handed_in / name).write_text(text)
    (handed_in / "test.conf").write_text(drop_in())
    for unit in UNITS.glob("*.service"):
        (handed_in / unit.name).write_text(unit.read_text().replace("/opt/sp-data/bin/", f"{PROGRAMS}/"))
    try:
        with Booted(Path("/var/tmp/sp-data-booted-debian"), base / "console", handed_in) as machine:
            install = f"""set -e
                useradd --system --home-dir /var/lib/sp-data-worker sp-data
                install -d -o sp-data -g sp-data /srv/sp-data
                install -d /etc/sp-data
                install -m 0600 {handed_in}/*.env /etc/sp-data/
                install -m 0644 {handed_in}/*.service /etc/systemd/system/
                for unit in sp-data-server sp-data-worker; do
                  install -D -m 0644 {handed_in}/test.conf /etc/systemd/system/$unit.service.d/test.conf
                done
                systemctl daemon-reload
                systemctl enable --now sp-data-server sp-data-worker"""
            started = machine.call("sh", "-c", install, check=False)
            if "failed" in started:
                raise AssertionError(started + machine.call("journalctl", "--no-pager", "--lines", "40"))
            address = f"http://127.0.0.1:{port}/api"
            place = Place(Path("/srv/sp-data"), address, {})
            try:
                wait_for("the server", lambda: answers(address), 180)
            except AssertionError as late:
                raise AssertionError(machine.call("journalctl", "--no-pager", "--lines", "60")) from late
            yield Services(machine, place)
    finally:
        for path in handed_in.iterdir():
            path.unlink()
        handed_in.rmdir()


@pytest.fixture(scope="module")
def outlived(services: Services) -> dict[str, Any]:
    """A run in whose middle the worker was restarted, after its end."""
    machine, place = services.machine, services.place
    machine.call(
        *("setpriv", "--reuid=sp-data", "--regid=sp-data", "--clear-groups", "env", "-C", "/srv/sp-data"),
        *(f"PYTHONPATH={SHOWN}", f"PREFECT_API_URL={place.server}", "PREFECT_HOME=/var/lib/sp-data-worker"),
        *(f"{PROGRAMS}/sp-data", "deploy", "demo"),
    )
    place.finished(place.start("dataset/demo", set=QUICK))
    # The automation starts it.
    wait_for("the fine-tuning", lambda: place.runs_of("finetune/demo"), 60)
    run = place.runs_of("finetune/demo")[0]["id"]
    wait_for("the training", lambda: "training.worker" in machine.call("ps", "-eo", "args"), 240)
    before = services.property_of("sp-data-worker", "MainPID")
    machine.call("systemctl", "restart", "sp-data-worker")
    assert services.property_of("sp-data-worker", "MainPID") != before
    assert "training.worker" in machine.call("ps", "-eo", "args"), "the training goes on"
    return place.finished(run, 400)


def test_a_run_outlives_a_restart_of_its_worker(services: Services, outlived: dict[str, Any]) -> None:
    assert outlived["state"]["name"].startswith("Done: prior, decoder"), outlived["state"]
    assert outlived["run_count"] == 1


def test_the_new_worker_takes_runs(services: Services, outlived: dict[str, Any]) -> None:
    unchanged = services.place.finished(services.place.start("dataset/demo"))
    assert unchanged["state"]["name"] == "Unchanged"


def test_a_killed_worker_and_a_killed_server_come_back(services: Services, outlived: dict[str, Any]) -> None:
    for unit in ("sp-data-worker", "sp-data-server"):
        before = services.property_of(unit, "MainPID")
        services.machine.call("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
        wait_for(
            f"another {unit}",
            lambda unit=unit, before=before: services.property_of(unit, "MainPID") not in (before, "0"),
            60,
        )
    wait_for("the server", lambda: answers(services.place.server), 120)


def test_secrets_and_settings_are_where_they_belong(services: Services, outlived: dict[str, Any]) -> None:
    machine = services.machine
    assert machine.call("stat", "--format", "%a %U", "/etc/sp-data/worker.env").strip() == "600 root"
    journal = machine.call("journalctl", "--no-pager", "--output", "cat")
    assert "sp-data" in journal
    assert SECRET not in journal
    assert SECRET not in machine.call("grep", "-rl", SECRET, "/srv", "/var/lib", check=False)
    assert SECRET not in json.dumps(services.place.log(outlived["id"]))
    workers = machine.call("ps", "-C", "prefect", "-o", "user=")
    assert set(workers.split()) == {"sp-data"}
