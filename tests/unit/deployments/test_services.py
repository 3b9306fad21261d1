"""The systemd units and what they are given: what systemd and Prefect themselves say of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import Settings

UNITS = Path(__file__).parents[3] / "deployments" / "systemd"
NAMES = ("sp-data-server.service", "sp-data-worker.service")
BIN = Path(sys.executable).parent


def filled_in(name: str) -> str:
    """The unit with the paths of this machine."""
    text = (UNITS / name).read_text()
    assert text.count("/opt/sp-data/bin/") == 1
    return text.replace("/opt/sp-data/bin/", f"{BIN}/")


def values(name: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / name).read_text(), re.MULTILINE)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed (Debian: systemd)")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(filled_in(name))
    paths = [str(tmp_path / name) for name in NAMES]
    process = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *paths],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Of the units of this machine it complains too.
    ours = [line for line in process.stderr.splitlines() if "sp-data" in line]
    assert (process.returncode, ours) == (0, [])


def test_systemd_would_find_a_wrong_line(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed (Debian: systemd)")
    (tmp_path / NAMES[0]).write_text(filled_in(NAMES[0]).replace("KillMode=mixed", "KillMood=mixed"))
    process = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", str(tmp_path / NAMES[0])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "KillMood" in process.stderr


def test_a_restart_of_the_worker_leaves_what_its_runs_stand_on() -> None:
    name = "sp-data-worker.service"
    assert values(name, "KillMode") == ["process"], "control-group would end the runs"
    assert values(name, "KillSignal") == ["SIGKILL"], "on SIGTERM Prefect's worker ends its runs itself"
    assert values(name, "OOMPolicy") == ["continue"], (
        "else one training without memory ends the worker and all its runs"
    )
    for folder_that_ends_with_the_service in ("PrivateTmp", "RuntimeDirectory"):
        assert not values(name, folder_that_ends_with_the_service)


@pytest.mark.parametrize(
    "path", [UNITS / "server.env", UNITS / "worker.env", UNITS.parent / "compose.env"], ids=lambda path: path.name
)
def test_every_setting_is_explained_and_one_that_prefect_knows(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [(number, m[1], m[2]) for number, line in enumerate(lines) if (m := re.match(r"#?([A-Z_]+)=(.*)", line))]
    known = prefect_settings()
    for number, name, value in found:
        assert lines[number - 1].startswith("# "), f"{name} is not explained"
        assert not name.startswith("PREFECT_") or name in known, name
        secret = re.search(r"PASSWORD|SECRET|AUTH_STRING|API_KEY", name)
        assert not (secret and value), f"{name} has a value in an example"
    assert len({name for _, name, _ in found}) == len(found)


def prefect_settings() -> set[str]:
    """Every environment variable that Prefect reads."""
    names: set[str] = set()

    def collect(model: type, prefix: str) -> None:
        # A `type` has no fields; that these are pydantic's models is asked below.
        for field_name, field in model.model_fields.items():  # type: ignore[attr-defined]
            nested = field.annotation
            if isinstance(nested, type) and hasattr(nested, "model_config") and "env_prefix" in nested.model_config:
                collect(nested, nested.model_config["env_prefix"])
                continue
            names.add((prefix + field_name).upper())
            choices = getattr(field.validation_alias, "choices", ())
            names.update(choice.upper() for choice in choices if isinstance(choice, str))

    collect(Settings, "PREFECT_")
    return names
