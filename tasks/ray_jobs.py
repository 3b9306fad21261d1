"""Jobs of a stage as Prefect tasks on Ray: who does the work of curate, reorder, verify and export in a flow run.

The library hands over a function and plain values (sp_data/runtime/jobs.py); some of them together are one task run, on
whatever machine Ray has free. Ray is started, or reached, when the first job comes: a run in which nothing changed does
without.
"""

from __future__ import annotations

import contextlib
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from sp_data.errors import StageError
from sp_data.recipe import Machines
from sp_data.runtime.jobs import Job, JobRunner, Result

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner

TASKS_AHEAD = 4
"""Task runs that wait, for each processor Ray has."""

_current: JobRunner | None = None


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
def do_jobs(pickled: bytes) -> list[Any]:
    """Do some jobs of a stage. Each publishes what it made whole or not at all, so a lost machine's are done again."""
    work, jobs = pickle.loads(pickled)
    return [work(job) for job in jobs]


class OnRay:
    """Jobs as task runs on Ray, several a task run."""

    def __init__(self, machines: Machines, stack: contextlib.ExitStack) -> None:
        """`stack` is closed when no more jobs come."""
        self._machines, self._stack = machines, stack
        self._runner: RayTaskRunner[Any] | None = None

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        waiting = iter(jobs)
        running: deque[Any] = deque()
        while True:
            while len(running) < self._most_running() and (batch := list(islice(waiting, self._machines.jobs_a_task))):
                # Pickled here: Prefect would search the values for futures, one by one.
                pickled = pickle.dumps((work, batch))
                running.append(self._started().submit(do_jobs, parameters={"pickled": pickled}))
            if not running:
                return
            yield from running.popleft().result()

    def _most_running(self) -> int:
        if self._runner is None:
            return 1
        import ray

        # Ray gives this function no types.
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(1, TASKS_AHEAD * int(there.get("CPU", 1)))

    def _started(self) -> RayTaskRunner[Any]:
        if self._runner is None:
            self._stack.enter_context(_reachable_server())
            self._runner = self._stack.enter_context(_ray(self._machines.ray_address))
        return self._runner


def _ray(address: str) -> RayTaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise StageError(
            "machines.runner is 'ray', and Prefect's Ray task runner is not installed; `pip install 'sp-data[ray]'`, "
            "or set machines.runner to threads"
        ) from error
    local = {"include_dashboard": False, "log_to_driver": False}
    return RayTaskRunner(address=address or None, init_kwargs={} if address else local)


@contextlib.contextmanager
def _reachable_server() -> Iterator[None]:
    """Tell Ray's workers where this run's temporary server is: each would start one of its own."""
    settings, server = get_current_settings(), SubprocessASGIServer()
    if settings.api.url is not None or not server.running:
        yield
        return
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def current_runner() -> JobRunner | None:
    """Who does the jobs of the flow run that is under way; None: threads of this process."""
    return _current


@contextlib.contextmanager
def running_jobs(machines: Machines) -> Iterator[None]:
    """Let the recipe's machines do the jobs of every stage task that runs meanwhile."""
    global _current
    before = _current
    with contextlib.ExitStack() as stack:
        _current = OnRay(machines, stack) if machines.runner == "ray" else None
        try:
            yield
        finally:
            _current = before
