"""Deployments on a real Prefect server with a real worker: as the README says, with other parameters, and cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.prefect_api import BIN, environment, get, post, wait_for

from sp_data.lake import Lake
from sp_data.recipe import load_recipe

PROJECT = Path(__file__).parents[2]
POOL = "sp-data"


@pytest.fixture(scope="module")
def deployed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The deployments by name, and a worker that waits for their runs."""
    home = environment(
        tmp_path_factory.mktemp("worker-home"),
        PREFECT_API_URL=server,
        PREFECT_WORKER_QUERY_SECONDS="1",
        PWD=str(PROJECT),
    )

    def prefect(*arguments: str) -> None:
        process = subprocess.run(
            [str(BIN / "prefect"), *arguments],
            cwd=PROJECT,
            env=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]

    prefect("work-pool", "create", POOL, "--type", "process")
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    worker = subprocess.Popen(
        [str(BIN / "prefect"), "worker", "start", "--pool", POOL],
        cwd=PROJECT,
        env=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield {deployment["name"]: deployment for deployment in post(server, "/deployments/filter", {})}
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(60)


def start(server: str, deployment: dict[str, Any], **parameters: Any) -> str:
    run = post(server, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    return str(run["id"])


def state_of(server: str, run: str) -> str:
    return str(get(server, f"/flow_runs/{run}")["state"]["type"])


def test_each_flow_has_one_deployment_and_its_form_has_the_recipe(deployed: dict[str, dict[str, Any]]) -> None:
    flows = {path.stem for path in (PROJECT / "flows").glob("*.py")} - {"__init__", "local_server"}
    assert deployed.keys() == flows
    for deployment in deployed.values():
        schema = deployment["parameter_openapi_schema"]
        assert {"recipe", "lake"} <= schema["properties"].keys()
        assert "Recipe" in schema["definitions"]
        assert schema["properties"]["recipe"]["default"]["name"] == "demo", "the form starts as the demo"
        for name, model in schema["definitions"].items():
            for field, field_schema in model.get("properties", {}).items():
                required = field in model.get("required", [])
                assert required or "default" in field_schema, f"{name}.{field} would be empty in the form"


def test_the_weekly_schedule_makes_scheduled_runs(server: str, deployed: dict[str, dict[str, Any]]) -> None:
    weekly = deployed["dataset"]
    assert [entry["schedule"]["cron"] for entry in weekly["schedules"]] == ["0 4 * * 1"]
    scheduled = {
        "deployments": {"id": {"any_": [weekly["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    wait_for("scheduled runs", lambda: post(server, "/flow_runs/filter", scheduled), 120)
    runs = post(server, "/flow_runs/filter", scheduled)
    assert all(run["auto_scheduled"] for run in runs)
    assert all(run["expected_start_time"][11:16] == "04:00" for run in runs)


def test_the_pipeline_runs_with_other_parameters(
    server: str, deployed: dict[str, dict[str, Any]], first_run: tuple[dict[str, Any], Path]
) -> None:
    _, lake = first_run
    kept = load_recipe_of(lake)
    recipe = {**kept, "decoder": {**kept["decoder"], "steps": 6}}
    recipe["decoder"]["unets"] = [{**unet, "steps": None} for unet in kept["decoder"]["unets"]]
    run = start(server, deployed["pipeline"], recipe=recipe, lake=str(lake))
    wait_for("the pipeline", lambda: state_of(server, run) in ("COMPLETED", "FAILED", "CRASHED"), 400)
    assert state_of(server, run) == "COMPLETED"
    logs = [line["message"] for line in post(server, "/logs/filter", {"limit": 200, "sort": "TIMESTAMP_DESC"})]
    assert any("unet 1: step 6 of 6" in line for line in logs), "the child's lines are in the run's log"
    artifacts = post(server, "/artifacts/filter", {})
    progress = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert progress["demo-decoder-progress"] == 100.0
    grids = [one["data"] for one in artifacts if one["key"] == "demo-decoder-progress-pictures"]
    for unet in ("unet 1", "unet 2"):
        assert any(grid.startswith(f"![{unet} of demo](data:image/jpeg;base64,") for grid in grids)


def load_recipe_of(lake: Path) -> dict[str, Any]:
    from sp_data.kept_recipe import recall_recipe

    kept = recall_recipe(Lake(str(lake), "demo"))
    assert kept is not None
    return kept.model_dump(mode="json")


def test_a_wrong_parameter_is_refused_before_the_run(server: str, deployed: dict[str, dict[str, Any]]) -> None:
    import urllib.error

    recipe = load_recipe("demo").model_dump(mode="json")
    recipe["decoder"]["steps"] = 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        start(server, deployed["pipeline"], recipe=recipe)
    assert refused.value.code == 409


def test_cancelling_a_training_ends_its_process(
    server: str, deployed: dict[str, dict[str, Any]], first_run: tuple[dict[str, Any], Path]
) -> None:
    _, lake = first_run
    kept = load_recipe_of(lake)
    recipe = {**kept, "prior": {**kept["prior"], "steps": 100_000, "save_every": 100_000, "log_every": 5}}
    before = set((lake / "demo" / "runs").glob("prior-*/metrics.jsonl"))
    run = start(server, deployed["finetune"], recipe=recipe, lake=str(lake))
    wait_for("the first line of metrics", lambda: set((lake / "demo/runs").glob("prior-*/metrics.jsonl")) - before, 200)
    assert trainers(lake), "a child process trains"
    post(server, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    wait_for("the cancellation", lambda: state_of(server, run) == "CANCELLED", 120)
    time.sleep(1)
    assert not trainers(lake)


def trainers(lake: Path) -> list[int]:
    """The ids of the processes that train in this lake."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if "sp_data.training.worker" in line and str(lake) in line:
            pids.append(int(entry.name))
    return pids
