"""Lakes that are made once a run, for any number of pytest-xdist's workers.

/tmp/pytest-of-kid/pytest-7/demo/         made by whichever worker asks first, only read afterwards
/tmp/pytest-of-kid/pytest-7/demo.lock     held while it is made: the other workers wait
/tmp/pytest-of-kid/pytest-7/popen-gw0/    a worker's own folder
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sp_data.lake import Lake


def made_once(name: str, make: Callable[[Path], Lake], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The lake that `make` makes in the subfolder `lake` of its empty folder; no test writes to it."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    # Made in its final place: tests look for its path in its files.
    folder, marker = run / name, run / f"{name}.dataset"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            marker.write_text(make(folder).dataset)
    return Lake(str(folder / "lake"), marker.read_text())


def copied(lake: Lake, into: Path) -> Lake:
    """A copy, below the folder `into`, that a test may change."""
    shutil.copytree(Path(lake.root).parent, into / "lake")
    return Lake(str(into / "lake"), lake.dataset)
