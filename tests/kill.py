"""Run `sp-data` and kill it, with SIGKILL, at a moment that can be named and so repeated.

    python tests/kill.py FOLDER FILES STEPS DELAY_MS scrape demo --lake ...

The moment: FILES files were published below a folder of the lake, then STEPS times something was opened, renamed, made
or removed, then DELAY_MS went by. 0 steps: right after the file. Whatever is left of the moment when the command ends,
it dies then. What dies is the real command; its children get no signal from here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from sp_data import cli
from sp_data.lake import FileEntry, Lake

STEPS = frozenset(
    ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "subprocess.Popen")
)
"""Audit events: each comes just before the thing is done."""


def die(where: str) -> None:
    print(f"killed after {where}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, num_files: int, num_steps: int, delay_ms: int, arguments: list[str]) -> None:
    publish = Lake.publish
    seen, steps, where = 0, 0, ""

    def due() -> None:
        told = f"{where}, {num_steps} steps and {delay_ms} ms" if num_steps or delay_ms else where
        if delay_ms:
            threading.Timer(delay_ms / 1000, die, [told]).start()
        else:
            die(told)

    def publish_and_count(self: Lake, made: Path, path: str, *, timed: bool = False) -> FileEntry:
        nonlocal seen, where
        entry = publish(self, made, path, timed=timed)
        if path.startswith(folder):
            seen += 1
            if seen == num_files:
                where = path
                if not num_steps:
                    due()
        return entry

    def step(event: str, _: tuple[object, ...]) -> None:
        nonlocal steps
        if where and event in STEPS:
            steps += 1
            if steps == num_steps:
                due()

    # In place of the method, for the whole process: it is the real command that dies.
    Lake.publish = publish_and_count  # type: ignore[method-assign]
    sys.addaudithook(step)
    sys.argv = ["sp-data", *arguments]
    try:
        cli.main()
    finally:
        die(f"{where}, {steps} steps, at its end")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), arguments=sys.argv[5:])
