"""The process in which img2dataset runs: `python -m sp_data.dataset.shards.img2dataset_worker JOBS.json`.

The file holds a list; each item is the keyword arguments of one call of img2dataset's `download`.

It is a process of its own because img2dataset installs a signal handler, starts workers that import the main module,
and exits 0 when interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sp_data.runtime.subprocesses import die_with_parent

if __name__ in ("__main__", "__mp_main__"):
    # The processes that img2dataset starts import this module as __mp_main__. One of them, the counter, waits
    # for the others forever: without this it would outlive a killed run.
    die_with_parent()
    # webdataset imports torch where it is installed and does without it elsewhere. Nothing here needs it, and each of
    # img2dataset's processes would spend seconds and 600 MB on it.
    sys.modules["torch"] = None  # type: ignore[assignment]


def main(jobs: Path) -> None:
    calls: list[dict[str, Any]] = json.loads(jobs.read_text())
    # Imported here, not above: the workers that img2dataset starts import this module too, and do not need it.
    from img2dataset import download

    for arguments in calls:
        download(**arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
