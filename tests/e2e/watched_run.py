"""`sp-data run demo` as a process that is watched: what it starts, where it listens, what it asks for.

with watched_run(lake, home) as run:
    run.wait_for("shards")
    run.end(signal.SIGKILL)
    assert not run.left()
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from e2e.prefect_api import BIN, QUICK, environment

MARK = "SP_DATA_WATCHED"


class WatchedRun:
    def __init__(self, process: subprocess.Popen[str], mark: str, lake: Path, output: Path, asked: Path) -> None:
        self.process, self._mark, self._lake, self._output, self._asked = process, mark, lake, output, asked

    @property
    def said(self) -> str:
        return self._output.read_text()

    def asked(self) -> str:
        """Every address beyond this machine that one of its processes looked up, connected to or sent to."""
        return self._asked.read_text() if self._asked.exists() else ""

    def processes(self) -> dict[int, str]:
        """Those that run and were started by it, however far down: number -> command."""
        running = {}
        for folder in Path("/proc").iterdir():
            # One that has ended and is not waited for has no environment any more.
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes():
                    running[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return running

    def wait_for(self, pattern: str, seconds: float = 240) -> None:
        """Until the dataset has a file like this, such as 'runs/prior-*/metrics.jsonl'."""
        deadline = time.monotonic() + seconds
        while not any(self._lake.glob(f"demo/{pattern}")):
            assert self.process.poll() is None, self.said[-2000:]
            assert time.monotonic() < deadline, f"{pattern}: not within {seconds:.0f} s: {self.said[-2000:]}"
            time.sleep(0.05)

    def end(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)
        self.process.wait(60)

    def left(self, seconds: float = 8) -> dict[int, str]:
        """What is still running after a moment."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


@contextlib.contextmanager
def watched_run(lake: Path, home: Path, *options: str) -> Iterator[WatchedRun]:
    mark = uuid.uuid4().hex
    output, asked = lake.with_name(f"{mark}.log"), lake.with_name(f"{mark}.asked")
    more = {MARK: mark, "SP_DATA_ASKED": str(asked)}
    path = [str(Path(__file__).with_name("audited")), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = [part for setting in QUICK for part in ("--set", setting)]
    with output.open("w") as stream:
        process = subprocess.Popen(
            [str(BIN / "sp-data"), "run", "demo", "--lake", str(lake), *settings, *options],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            text=True,
            env=environment(home, **more, PYTHONPATH=os.pathsep.join(path)),
            start_new_session=True,
        )
    run = WatchedRun(process, mark, lake, output, asked)
    try:
        yield run
    finally:
        for number in [process.pid, *run.processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()
