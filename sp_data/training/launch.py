"""The processes that train together: how many there are, and how they find each other.

On a CPU they are forked, so that what the first one imported need not be imported again; CUDA needs fresh ones. A
process that `accelerate launch` started finds its place in its environment, and starts no others.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta

from sp_data.errors import StageError
from sp_data.recipe import Training
from sp_data.runtime.subprocesses import die_with_parent

log = logging.getLogger("sp_data.training")

MIN_PICTURES = 4
"""Of a batch, for each process on a CPU: dividing it further costs more than it gains."""
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one may save many gigabytes to a slow store."""


def num_cores() -> int:
    """How many cores this process may use; OMP_NUM_THREADS limits them."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) else len(os.sched_getaffinity(0))


def num_processes(settings: Training, field: str) -> int:
    """How many processes train on this machine. Raises StageError if there are not so many GPUs."""
    import torch

    if settings.device == "cpu" or not torch.cuda.is_available():
        if settings.processes is not None:
            return settings.processes
        return max(1, min(num_cores(), settings.batch_size // MIN_PICTURES))
    devices = torch.cuda.device_count()
    if settings.processes is not None and settings.processes > devices:
        raise StageError(f"{field}.processes is {settings.processes}, and torch finds {devices} GPUs")
    return settings.processes or min(devices, settings.batch_size)


def is_launched() -> bool:
    """Whether this process is one of several that somebody else started."""
    return "RANK" in os.environ


def run_together(run: Callable[[], None], settings: Training, processes: int) -> None:
    """Call `run` in so many processes that are a group (torch.distributed), and wait for them.

    It ends this process with exit code 1 if one of them fails, which says why itself.
    """
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    has_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if not has_cuda:
        from sp_data.training.dalle2 import dalle2_module
        from sp_data.training.loop import loop as _loop  # noqa: F401

        dalle2_module()
        # Imports torch's compiler, as every optimizer does, which takes a second.
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    # Passed on to every process of the group; this one waits for the others to save.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # torch removes the file in it, at a time of its own.
    with tempfile.TemporaryDirectory(prefix="sp-data-train-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = _Place(processes, f"{folder}/meeting-point", probe.getsockname()[1], has_cuda)
        try:
            start_processes(  # type: ignore[no-untyped-call]
                _begin, (place, run), processes, start_method="spawn" if has_cuda else "fork"
            )
        except ProcessExitedException as error:
            # The process that failed has said why, unless it was killed.
            log.error("%s", error)
            sys.exit(1)


class _Place:
    """Where the processes of a group meet."""

    def __init__(self, processes: int, meeting_point: str, port: int, has_cuda: bool) -> None:
        self.processes, self.meeting_point, self.port, self.has_cuda = processes, meeting_point, port, has_cuda


def _begin(rank: int, place: _Place, run: Callable[[], None]) -> None:
    die_with_parent()
    join(rank, place.processes, place.meeting_point, place.port, has_cuda=place.has_cuda)
    run()
    from torch import distributed

    distributed.destroy_process_group()


def join(rank: int, processes: int, meeting_point: str, port: int, *, has_cuda: bool) -> None:
    """Become process `rank` of a group. `meeting_point`: a file that need not exist."""
    import torch
    from torch import distributed

    threads = max(1, num_cores() // processes)
    torch.set_num_threads(threads)
    # What accelerate reads, beside the group that is made here.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
    }
    if has_cuda:
        torch.cuda.set_device(rank)
    else:
        os.environ |= {"ACCELERATE_USE_CPU": "yes", "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group(
        "nccl" if has_cuda else "gloo",
        store=torch._C._distributed_c10d.FileStore(meeting_point, processes),
        rank=rank,
        world_size=processes,
        timeout=PATIENCE,
    )
