"""The demo in a network namespace of its own: `unshare --map-root-user --net python offline_run.py FOLDER`.

Prints, as JSON, where its processes listened, whom they were connected to, and whom they asked for anything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.watched_run import watched_run

IN_TWO_PROCESSES = ["--set", "prior.processes=2", "--set", "decoder.processes=2"]


def _sockets(*options: str) -> list[list[str]]:
    """Rows of ss: state, queues, own address, peer."""
    listed = subprocess.run(["ss", "-H", "-n", *options], capture_output=True, text=True, check=True)
    return [line.split() for line in listed.stdout.splitlines()]


def main(folder: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listens: set[str] = set()
    peers: set[str] = set()
    with watched_run(folder / "lake", folder / "home", *IN_TWO_PROCESSES) as run:
        while run.process.poll() is None:
            listens |= {row[3].rpartition(":")[0] for row in _sockets("-l", "-t")}
            peers |= {row[4].rpartition(":")[0] for row in [*_sockets("-t", "-a"), *_sockets("-u", "-a")]}
            time.sleep(0.2)
        seen = {
            "returncode": run.process.returncode,
            "said": run.said[-2000:],
            "listens": sorted(listens),
            # A socket that listens, or has sent nothing yet, has no peer.
            "peers": sorted(peers - {"0.0.0.0", "*", "[::]"}),
            "asked": run.asked(),
            "left": list(run.left().values()),
        }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
