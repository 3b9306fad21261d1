"""Dockerfile, compose file and Kubernetes templates agree with each other and with the Makefile.

Whether they are valid and run is proven by tests/e2e/test_containers.py.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from typing import Any

import pytest
import yaml
from image import DOCKERFILE, REPOSITORY, steps
from typer.main import get_command

from sp_data.cli.pipeline import commands
from sp_data.pipeline import TRAININGS

DEPLOYMENTS = REPOSITORY / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "sp-data"}
KUBERNETES = DEPLOYMENTS / "kubernetes"
DEBIANS_PYTHON = {"bookworm": "3.11"}


def test_the_image_installs_what_the_makefile_installs() -> None:
    makefile, dockerfile = (REPOSITORY / "Makefile").read_text(), DOCKERFILE.read_text()
    version = re.search(r"^UV_VERSION := (.*)$", makefile, re.MULTILINE)
    assert version
    assert f"ARG UV_VERSION={version[1]}\n" in dockerfile
    assert dockerfile.count("--constraints constraints.txt") == 2
    suite = next(step.rest for step in steps(dockerfile) if step.word == "FROM").removeprefix("debian:").split("-")[0]
    assert f"--python-version {DEBIANS_PYTHON[suite]} " in makefile, "the Python that constraints.txt was resolved for"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    let_through = set(re.findall(r"^!(.+)$", (DEPLOYMENTS / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    copied = {name for step in steps(DOCKERFILE.read_text()) if step.word == "COPY" for name in step.rest.split()[:-1]}
    assert copied == let_through
    assert all((REPOSITORY / name).exists() for name in copied)


def test_the_image_runs_as_a_user_of_its_own_and_holds_no_secret() -> None:
    found = steps(DOCKERFILE.read_text())
    assert [step.rest for step in found if step.word == "USER"] == ["sp-data"]
    assert not re.search(r"PASSWORD|SECRET|KEY|AUTH", " ".join(step.rest for step in found if step.word == "ENV"))


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_starts_a_program_of_the_image_and_has_a_health_check(name: str) -> None:
    programs = {"python", *(script.name for script in entry_points(group="console_scripts"))}
    service = OURS[name]
    assert service["command"][0] in programs
    assert service["healthcheck"]["test"][:2] == ["CMD", "python"]
    assert service["cap_drop"] == ["ALL"]


def test_the_volume_of_the_image_is_the_one_that_is_mounted() -> None:
    volumes = [json.loads(step.rest) for step in steps(DOCKERFILE.read_text()) if step.word == "VOLUME"]
    assert volumes == [["/srv/sp-data"]], "a volume below it would be another one in each container"
    for name in ("worker", "gpu-worker"):
        assert [mount.rpartition(":")[2] for mount in OURS[name]["volumes"]] == volumes[0]


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOYMENTS / "compose.yaml").read_text()))
    used |= {
        name
        for service in COMPOSE["services"].values()
        for name, value in service["environment"].items()
        if value is None
    }
    explained = set(re.findall(r"^#?([A-Z_]+)=", (DEPLOYMENTS / "compose.env").read_text(), re.MULTILINE))
    assert used == explained


def test_no_secret_stands_in_a_file() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|KEY|AUTH", name):
                assert value is None or value.startswith("${"), name
    job = yaml.safe_load((KUBERNETES / "gpu-job.yaml").read_text())
    assert not any("env" in container for container in containers_of(job)), "secrets come by envFrom"


def test_the_job_template_uses_its_variables_and_no_others() -> None:
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_the_job_is_the_fine_tuning_that_it_says_it_is() -> None:
    job = yaml.safe_load((KUBERNETES / "gpu-job.yaml").read_text())
    prior, decoder = containers_of(job)
    assert [container["command"][:3] for container in (prior, decoder)] == [
        ["sp-data", "train", name] for name in TRAININGS
    ]
    assert prior["command"][3:] == decoder["command"][3:], "one dataset of one lake"
    for container in (prior, decoder):
        # As the command itself reads it; it raises for an option that it does not have.
        arguments = container["command"][2:]
        # A group, whose type in typer is a plain command.
        get_command(commands).commands["train"].make_context("train", arguments)  # type: ignore[attr-defined]
    assert {**prior, "name": "", "command": []} == {**decoder, "name": "", "command": []}


def containers_of(job: Any) -> list[dict[str, Any]]:
    """In the order in which they run."""
    pod = job["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def test_job_and_job_template_ask_for_one_gpu_the_same_volume_and_the_same_user() -> None:
    job = yaml.safe_load((KUBERNETES / "gpu-job.yaml").read_text())
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    defaults = {name: field["default"] for name, field in template["variables"]["properties"].items()}
    of_job = job["spec"]["template"]["spec"]
    of_template = filled_in(template["job_configuration"]["job_manifest"], defaults)["spec"]["template"]["spec"]
    for key in ("volumes", "securityContext", "tolerations", "terminationGracePeriodSeconds"):
        assert of_job[key] == of_template[key], key
    for key in ("image", "resources", "volumeMounts", "securityContext", "envFrom"):
        assert of_job["containers"][0][key] == of_template["containers"][0][key], key
    claim = yaml.safe_load((KUBERNETES / "lake.yaml").read_text())
    assert of_job["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert of_job["securityContext"]["runAsUser"] == 10001
    assert "--uid 10001 " in DOCKERFILE.read_text()


def filled_in(template: Any, values: dict[str, Any]) -> Any:
    from prefect.utilities.templating import apply_values

    return apply_values(template, values)
