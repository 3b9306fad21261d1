"""Who does work that falls into jobs which need nothing of each other: threads of this process, or other machines.

    for result in runner.map(look_at, jobs): ...

A stage hands over a function of a module and plain values, since both may have to travel, and takes the results in the
order of its jobs. What comes out does not depend on who did it.
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
"""Jobs a thread that may wait for whoever takes the results, so that a hundred thousand of them are not in memory."""


class JobRunner(Protocol):
    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, in their order; raises what a job raised."""


class ThreadRunner:
    """Threads of this process: what the stages do for long (numpy, Pillow, hashing, disks) lets the others go on."""

    def __init__(self, count: int = 0) -> None:
        """`count` 0: one a core."""
        self._count = count or os.cpu_count() or 1

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        waiting = iter(jobs)
        with ThreadPoolExecutor(self._count) as pool:
            running: deque[Future[Result]] = deque(
                pool.submit(work, job) for job in islice(waiting, AHEAD * self._count)
            )
            try:
                while running:
                    done = running.popleft()
                    result = done.result()
                    running.extend(pool.submit(work, job) for job in islice(waiting, 1))
                    yield result
            finally:
                for left in running:
                    left.cancel()
