"""Run `sp-data` and kill it, with SIGKILL, right after the n-th file it publishes below a folder of the lake.

    python tests/killing.py FOLDER N scrape demo --lake ...

A signal from outside would fall at another place each time; this one falls where the test says, and what dies is the
real command.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from sp_data import cli
from sp_data.lake import FileEntry, Lake


def main(folder: str, count: int, arguments: list[str]) -> None:
    publish = Lake.publish
    seen = 0

    def publish_and_die(self: Lake, made: Path, path: str, *, timed: bool = False) -> FileEntry:
        nonlocal seen
        entry = publish(self, made, path, timed=timed)
        seen += path.startswith(folder)
        if seen == count:
            print(f"killed after {path}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return entry

    Lake.publish = publish_and_die  # type: ignore[method-assign]
    sys.argv = ["sp-data", *arguments]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
