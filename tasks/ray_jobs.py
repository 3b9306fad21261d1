"""Jobs of a stage as Prefect tasks on Ray: how curate, reorder, verify and export do their work in a flow run.

The library hands over a function and plain values (sp_data/runtime/jobs.py). Several jobs make one task run, on any
machine that Ray has free. Ray is started, or connected to, when the first job comes: a run in which nothing changed
does not need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from sp_data.errors import StageError
from sp_data.recipe import Machines
from sp_data.runtime.jobs import Job, JobRunner, Result

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner

log = logging.getLogger("sp_data.tasks")

LOCAL_RAY = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment of a Ray that is started here, unless it says otherwise: who has no token is given no work to do, and
nobody is told of it."""
TASKS_AHEAD = 4
"""Task runs submitted at once, for each processor of Ray's."""

_current: JobRunner | None = None


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
def do_jobs(pickled: bytes) -> list[Any]:
    """Do some jobs of a stage. Each publishes its result whole or not at all, so a lost machine's can be repeated."""
    work, jobs = pickle.loads(pickled)
    return [work(job) for job in jobs]


class OnRay:
    """Jobs as task runs on Ray, several a task run."""

    def __init__(self, machines: Machines, stack: contextlib.ExitStack) -> None:
        """`stack` keeps Ray running; its owner closes it when no more jobs come."""
        self._machines, self._stack = machines, stack
        self._runner: RayTaskRunner[Any] | None = None

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        waiting = iter(jobs)
        running: deque[Any] = deque()
        while True:
            while len(running) < self._max_running() and (batch := list(islice(waiting, self._machines.jobs_a_task))):
                # Pickled here, because Prefect would search the values for futures, one by one.
                pickled = pickle.dumps((work, batch))
                running.append(self._start_if_needed().submit(do_jobs, parameters={"pickled": pickled}))
            if not running:
                return
            yield from running.popleft().result()

    def _max_running(self) -> int:
        if self._runner is None:
            return 1
        import ray

        # This function of Ray's has no types.
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(1, TASKS_AHEAD * int(resources.get("CPU", 1)))

    def _start_if_needed(self) -> RayTaskRunner[Any]:
        if self._runner is None:
            self._stack.enter_context(_reachable_server())
            self._runner = self._stack.enter_context(_ray(self._machines.ray_address))
        return self._runner


def _ray(address: str) -> RayTaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise StageError(
            "machines.runner is 'ray', but Prefect's Ray task runner is not installed; `pip install 'sp-data[ray]'`, "
            "or set machines.runner to threads"
        ) from error
    if address:
        return RayTaskRunner(address=address)
    os.environ |= {**LOCAL_RAY, **{name: os.environ[name] for name in LOCAL_RAY if name in os.environ}}
    log.warning(
        "ray: its processes listen on every network of this machine while the run lasts, which Ray cannot be told "
        "otherwise; RAY_AUTH_MODE is %s",
        os.environ["RAY_AUTH_MODE"],
    )
    return RayTaskRunner(init_kwargs={"include_dashboard": False, "log_to_driver": False})


@contextlib.contextmanager
def _reachable_server() -> Iterator[None]:
    """Tell Ray's workers where this run's temporary server is: otherwise each would start one of its own."""
    if get_current_settings().api.url is not None:
        yield
        return
    # Seconds of imports, which a run that has a server need not wait for.
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    if not server.running:
        yield
        return
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def current_runner() -> JobRunner | None:
    """What runs the jobs of the current flow run; None: threads of this process."""
    return _current


@contextlib.contextmanager
def running_jobs(machines: Machines) -> Iterator[None]:
    """Run the jobs of every stage task on the recipe's machines while the `with` block runs."""
    global _current
    previous = _current
    with contextlib.ExitStack() as stack:
        _current = OnRay(machines, stack) if machines.runner == "ray" else None
        try:
            yield
        finally:
            _current = previous
