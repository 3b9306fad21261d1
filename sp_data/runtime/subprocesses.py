"""Child processes that cannot outlive their parent: each leads a process group, which ends with the context, and its
processes end by themselves where the parent was killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PR_SET_PDEATHSIG = 1
GRACE_S = 5.0
WATCH_S = 0.5
PARENT = "SP_DATA_PARENT_PID"
"""Environment variable of a child: who started it."""


@contextlib.contextmanager
def python_child(
    module: str, *arguments: str, log: Path, environment: Mapping[str, str], grace_s: float = GRACE_S
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module arguments…` with its output in `log`; the end of the context ends the whole group: it is
    told to stop, and killed after `grace_s` seconds."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, PARENT: str(os.getpid())},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_group(process, grace_s)


def end_group(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """End a child that leads its own process group, and all processes it started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
    # The leader has ended; a grandchild that ignored the first signal may run on.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def die_with_parent(parent: int = 0) -> None:
    """Called first thing in a child: it is killed when its parent dies, even by SIGKILL.

    `parent`: its process id, if the child was told.

    On Linux the kernel does that, at the end of the thread that started the child; elsewhere a thread watches.
    """
    # Its own children have another parent.
    told = int(os.environ.pop(PARENT, "0"))
    given = parent or told
    parent = given or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        watch_parent(parent)
    # In a container the parent itself may be process 1; otherwise that takes in those whose parent has died.
    if os.getppid() != parent or (parent == 1 and not given):
        # The parent died before this call.
        os._exit(1)


def watch_parent(parent: int) -> None:
    """Have a thread end this process soon after its parent, the process `parent`, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def tail(log: Path, num_lines: int = 5) -> str:
    """The last lines of a log, on one line, for an error message."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-num_lines:])
