"""`deployments/prefect.yaml` says what `sp-data deploy southpark` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deployments.wanted import Target, wanted
from sp_data.recipe import southpark

FILE = Path(__file__).parents[3] / "deployments" / "prefect.yaml"


def test_the_file_has_the_deployments_of_the_command() -> None:
    target = Target.of("southpark", southpark(), "./lake", None)
    made = {
        deployment.full_name: {
            "entrypoint": deployment.fields["entrypoint"],
            "tags": deployment.fields["tags"],
            "queue": deployment.fields["work_queue_name"],
            "job": deployment.fields["job_variables"],
            "parameters": deployment.fields["parameters"],
            "crons": [deployment.cron] if deployment.cron else [],
        }
        for deployment in wanted([target], [], "/home/me", None).deployments
    }
    written: list[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["deployments"]
    assert made == {
        f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": {
            "entrypoint": entry["entrypoint"],
            "tags": entry["tags"],
            "queue": entry["work_pool"]["work_queue_name"],
            "job": entry["work_pool"]["job_variables"],
            "parameters": entry["parameters"],
            "crons": [schedule["cron"] for schedule in entry.get("schedules", [])],
        }
        for entry in written
    }


def test_every_flow_is_deployed_for_every_dataset() -> None:
    flows = {path.stem for path in (FILE.parents[1] / "flows").glob("*.py")} - {
        "__init__",
        "local_server",
        "temporary_server",
        "parameters",
    }
    target = Target.of("southpark", southpark(), "./lake", None)
    assert {deployment.flow for deployment in wanted([target], [], ".", None).deployments} == flows
