"""Every step of the Dockerfile in a fresh Debian root, then what compose.yaml starts; the manifests by their schemas.

The schemas come in packages (kubernetes-validate, compose-spec) which `uv tool run` fetches.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.prefect_api import QUICK
from image import REPOSITORY, Image, build, mounted
from prefect.utilities.templating import apply_values

pytestmark = pytest.mark.proof
DEPLOYMENTS = REPOSITORY / "deployments"
UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """What `docker build` would make, 8 GB; SP_DATA_IMAGE_ROOT keeps it there and takes one that is there already."""
    missing = [name for name in ("debootstrap", "unshare", "setpriv", "ip") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'} (Debian: debootstrap util-linux iproute2)")
    root = Path(os.environ.get("SP_DATA_IMAGE_ROOT") or tmp_path_factory.mktemp("image") / "root")
    cache = subprocess.run([str(UV), "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    built = build(root, Path(cache))
    try:
        with mounted(built):
            yield built
    finally:
        if "SP_DATA_IMAGE_ROOT" not in os.environ:
            shutil.rmtree(root)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    return found


def test_the_image_makes_the_demo_without_a_network(image: Image) -> None:
    sets = [part for setting in QUICK for part in ("--set", setting)]
    command = image.argv(["sp-data", "run", "demo", "--no-prefect", "--json", *sets], {"OMP_NUM_THREADS": "1"})
    process = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    assert [stage["name"] for stage in json.loads(process.stdout)["stages"]][-3:] == ["prior", "decoder", "judge"]
    manifest = next((image.root / "srv/sp-data/lake/demo").rglob("*.json"))
    assert manifest.stat().st_uid == 10001


def test_server_and_worker_of_the_compose_file_start_and_are_healthy(image: Image, compose: dict[str, Any]) -> None:
    server, worker = compose["services"]["server"], compose["services"]["worker"]
    # One network for both, in which `server` is this machine; SQLite in place of the database.
    environment = {
        name: value
        for name, value in {**server["environment"], **worker["environment"]}.items()
        if value is not None and "DATABASE" not in name and "$" not in value
    }
    environment["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    script = " ".join(
        [
            *("server() {", *quoted(server["command"]), ";}; worker() {", *quoted(worker["command"]), ";};"),
            *("server_health() {", *quoted(server["healthcheck"]["test"][1:]), ";};"),
            *("worker_health() {", *quoted(worker["healthcheck"]["test"][1:]), ";};"),
            "server & until server_health 2>/dev/null; do sleep 1; done; echo server healthy;",
            "worker & until worker_health 2>/dev/null; do sleep 1; done; echo worker healthy;",
            "kill %1 %2 2>/dev/null || kill $(jobs -p); exit 0",
        ]
    )
    process = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", *image.argv(["sh", "-c", script], environment)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "server healthy" in process.stdout, process.stdout[-2000:] + process.stderr[-2000:]
    assert "worker healthy" in process.stdout, process.stdout[-2000:] + process.stderr[-2000:]


def quoted(command: list[str]) -> list[str]:
    return [shlex.quote(word) for word in command]


def test_the_compose_file_is_one_by_its_specification(compose: dict[str, Any], tmp_path: Path) -> None:
    # The checker knows neither YAML's merge keys nor compose's variables.
    services = {name: value for name, value in compose.items() if not name.startswith("x-")}
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", yaml.safe_dump(services))
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "given", text)
    check = "import sys, compose_spec as c; c.PyCompose.from_yaml(sys.stdin.read()).validate(); print('valid')"
    command = [str(UV), "tool", "run", "--from", "compose-spec==0.2.1", "python", "-c", check]
    good = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert good.stdout.strip() == "valid", good.stderr[-2000:]
    bad = subprocess.run(
        command, input=text.replace("healthcheck:", "helthcheck:"), capture_output=True, text=True, timeout=120
    )
    assert "helthcheck" in bad.stderr, "the check would find a word that the specification does not know"


@pytest.mark.parametrize("name", ["gpu-job.yaml", "lake.yaml", "base-job-template.json"])
def test_a_manifest_is_valid_by_kubernetes_own_schema(name: str, tmp_path: Path) -> None:
    text = (DEPLOYMENTS / "kubernetes" / name).read_text()
    if name.endswith(".json"):
        template = json.loads(text)
        defaults = {key: field["default"] for key, field in template["variables"]["properties"].items()}
        # What Prefect makes of the two that are empty here.
        defaults |= {"command": ["prefect", "flow-run", "execute"], "env": [{"name": "A", "value": "b"}]}
        text = yaml.safe_dump(without_nulls(apply_values(template["job_configuration"]["job_manifest"], defaults)))
    path = tmp_path / "manifest.yaml"
    # The checker asks for a name, which the cluster makes of this.
    path.write_text(text.replace("generateName:", "name:"))
    assert validated(path) == ""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(path.read_text().replace("spec:", "spek:", 1))
    assert "spek" in validated(wrong), "the check would find a word that the schema does not know"


def validated(path: Path) -> str:
    """What kubernetes-validate says of a manifest; empty if nothing is wrong."""
    command = ["tool", "run", "kubernetes-validate==1.37.0", "--strict", "-k", "1.37.0", str(path)]
    process = subprocess.run([str(UV), *command], capture_output=True, text=True, timeout=120)
    return "" if process.returncode == 0 else process.stdout + process.stderr


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
