"""Run `sp-data` and kill it with SIGKILL at a given moment, which can be repeated.

    python tests/kill.py FOLDER FILES STEPS DELAY_MS scrape demo --lake ...

The moment: FILES files were published below FOLDER in the lake, then STEPS times a file or folder was opened, renamed,
made or removed or a process was started, then DELAY_MS passed. With 0 steps: right after the file. A command that ends
before its moment is killed at its end. The real command is killed; its children get no signal from this script.
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
"""Audit events; Python raises each just before the operation."""


def die(moment: str) -> None:
    print(f"killed after {moment}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, num_files: int, num_steps: int, delay_ms: int, arguments: list[str]) -> None:
    publish = Lake.publish
    num_published, steps, last_file = 0, 0, ""

    def die_at_moment() -> None:
        moment = f"{last_file}, {num_steps} steps and {delay_ms} ms" if num_steps or delay_ms else last_file
        if delay_ms:
            threading.Timer(delay_ms / 1000, die, [moment]).start()
        else:
            die(moment)

    def publish_and_count(self: Lake, file: Path, path: str, *, timed: bool = False) -> FileEntry:
        nonlocal num_published, last_file
        entry = publish(self, file, path, timed=timed)
        if path.startswith(folder):
            num_published += 1
            if num_published == num_files:
                last_file = path
                if not num_steps:
                    die_at_moment()
        return entry

    def step(event: str, _: tuple[object, ...]) -> None:
        nonlocal steps
        if last_file and event in STEPS:
            steps += 1
            if steps == num_steps:
                die_at_moment()

    # Replaces the method for the whole process, so that the real command is the one killed.
    Lake.publish = publish_and_count  # type: ignore[method-assign]
    sys.addaudithook(step)
    sys.argv = ["sp-data", *arguments]
    try:
        cli.main()
    finally:
        die(f"{last_file}, {steps} steps, at its end")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), arguments=sys.argv[5:])
