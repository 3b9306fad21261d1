"""A small Debian with systemd, booted in a container on this machine's network, with this repository and its Python.

The root is made once by debootstrap (a minute) and only read afterwards: each boot writes into memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parents[1]
SHOWN = Path("/opt/repository")
"""Where the repository is seen in the container."""
PYTHON = sorted({Path(sys.prefix).resolve(), Path(sys.base_prefix)} - {Path("/usr")})
"""The environment, and the Python that it was made of, at their own places."""
PROGRAMS = Path(sys.prefix).resolve() / "bin"
PACKAGES = "ca-certificates,dbus,iproute2,procps,python3,python3-venv,systemd,systemd-sysv"


def why_not() -> str:
    """Why it cannot run here; empty if it can."""
    if os.geteuid() != 0:
        return "a container is booted by root"
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if not shutil.which(name)]
    return f"{', '.join(missing)} missing (Debian: debootstrap systemd-container util-linux)" if missing else ""


class Booted:
    """Running within the context. `root`: a folder for Debian, which is made if it is not there."""

    def __init__(self, root: Path, console: Path, writable: Path) -> None:
        self.root, self.console, self.writable = root, console, writable
        self._container: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Booted:
        if not (self.root / "usr/lib/systemd/systemd").exists():
            suite = _suite()
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(self.root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        binds = [f"--bind-ro={path}" for path in PYTHON] + [f"--bind-ro={REPOSITORY}:{SHOWN}"]
        command = ["systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--volatile=overlay", "--console=pipe"]
        with self.console.open("wb") as output:
            self._container = subprocess.Popen(
                [*command, f"--directory={self.root}", *binds, f"--bind={self.writable}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while "running" not in (state := self.call("systemctl", "is-system-running", check=False)):
            assert time.monotonic() < deadline, f"not booted: {state}\n{self.console.read_text()[-2000:]}"
            if "degraded" in state:
                break
            time.sleep(0.5)
        # A Python in somebody's home is for the services' user too.
        self.call("chmod", "a+x", *{str(parent) for path in PYTHON for parent in path.parents})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._container is not None
        self.call("systemctl", "poweroff", "--force", "--force", check=False)
        try:
            self._container.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._container.pid, signal.SIGKILL)
            self._container.wait(10)

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command in the container, as root; returns what it prints."""
        process = subprocess.run(
            [
                "nsenter",
                "--target",
                str(self._first()),
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--cgroup",
                "--",
                *command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or process.returncode == 0, f"{command}: {process.stdout[-2000:]}{process.stderr[-2000:]}"
        return process.stdout + process.stderr

    def _first(self) -> int:
        """The container's process 1, as this machine numbers it."""
        assert self._container is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self._container.poll() is None, self.console.read_text()[-2000:]
            children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
            for child in children:
                # Before it is systemd it is still preparing the mounts.
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
            time.sleep(0.2)
        raise AssertionError(f"no process 1: {self.console.read_text()[-2000:]}")


def _suite() -> str:
    release = Path("/etc/os-release").read_text()
    return next(line.partition("=")[2] for line in release.splitlines() if line.startswith("VERSION_CODENAME="))
