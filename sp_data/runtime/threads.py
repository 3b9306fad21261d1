"""Threads that wait for each other without taking the processor from whoever they wait for.

OpenMP's threads meet after every operation of torch. By default they spin while they wait: on two cores with nothing
else to do that is a third faster, beside any other load ten times slower, since the spinning thread takes the processor
from the one that works. One picture of the demo took 50 s instead of 4 beside a training.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

VARIABLE = "OMP_WAIT_POLICY"


@contextlib.contextmanager
def patient_threads() -> Iterator[None]:
    """Within the context torch, which reads this when it is imported, makes threads that sleep while they wait. Child
    processes choose for themselves; whoever has set the variable has chosen."""
    if VARIABLE in os.environ:
        yield
        return
    os.environ[VARIABLE] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def import_torch() -> None:
    """Import torch with patient threads: for a command that imports it before it loads a CLIP."""
    with patient_threads():
        import torch  # noqa: F401
