"""Who does work that is divided into independent jobs: threads of this process, or other machines.

    for result in runner.map(check_shard, jobs): ...

A stage passes a module's function and plain values, since both may be sent to another machine, and takes the results in
the order of its jobs. The results do not depend on who did the jobs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2
"""Jobs per thread that may be ahead of the caller, so that not a hundred thousand results are in memory."""


class JobRunner(Protocol):
    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, in the order of the jobs; raises what a job raised."""


class ThreadRunner:
    """Threads of this process: the long work of the stages (numpy, Pillow, hashing, disks) releases the GIL."""

    def __init__(self, count: int = 0) -> None:
        """`count` 0: one per core."""
        self._count = count or os.cpu_count() or 1

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        remaining = iter(jobs)
        with ThreadPoolExecutor(self._count) as pool:
            running: deque[Future[Result]] = deque(
                pool.submit(work, job) for job in islice(remaining, AHEAD * self._count)
            )
            try:
                while running:
                    first = running.popleft()
                    result = first.result()
                    running.extend(pool.submit(work, job) for job in islice(remaining, 1))
                    yield result
            finally:
                for future in running:
                    future.cancel()
