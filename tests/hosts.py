"""Hosts on one machine: network namespaces on a switch of their own, each with folders of its own at a shared path.

    switch   a bridge, and nothing else
    NAME     one interface 10.77.0.N on it and loopback; no route leads anywhere else

Only the network and the named folder are apart: processor, memory and clock are this machine's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """Why there can be none here; empty if there can."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "network namespaces take root and iproute2 (Debian)"
    probe = f"sp-probe-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return "" if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


class Hosts:
    """Running within the context. `own`: a path at which each host sees a folder of its own."""

    def __init__(self, names: Sequence[str], folder: Path, own: Path) -> None:
        self._prefix = f"sp{secrets.token_hex(2)}"
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 2)}
        self.folder, self.own = folder, own
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        self.own.mkdir()
        switch = self._namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in self.addresses.items():
            host = self._namespace(name)
            (self.folder / name).mkdir()
            _ip("netns", "add", host)
            _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"to-{name}", "netns", switch)
            _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        for name in (*self.addresses, "switch"):
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], capture_output=True)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Path:
        """Start a service on a host, in its own folder; returns the file that holds its output."""
        log = self.folder / f"{name}.log"
        mount = 'mount --bind "$1" "$2" && cd "$2" && shift 2 && exec "$@"'
        inside = ["sh", "-c", mount, "sh", str(self.folder / name), str(self.own), *command]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace(name), *inside],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return log

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """This thread, and the processes that it starts, are on that host's network."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path("/run/netns", self._namespace(name)).open() as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def routes(self, name: str) -> str:
        return _ip("-n", self._namespace(name), "route")

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
