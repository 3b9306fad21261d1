"""Jobs on threads: results in the order of the jobs, few jobs taken ahead, errors raised where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sp_data.runtime.jobs import AHEAD, ThreadRunner


def test_results_come_in_the_order_of_the_jobs() -> None:
    first_may_end = threading.Event()

    def work(job: int) -> int:
        if job == 0:
            assert first_may_end.wait(10)
        else:
            first_may_end.set()
        return job * job

    assert list(ThreadRunner(2).map(work, range(50))) == [job * job for job in range(50)]


def test_jobs_are_taken_only_a_little_ahead() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(1000):
            taken.append(job)
            yield job

    for number, result in enumerate(ThreadRunner(3).map(lambda job: job, jobs())):
        assert result == number
        assert len(taken) <= number + 1 + AHEAD * 3


def test_an_error_is_raised_after_the_results_before_it() -> None:
    def work(job: int) -> int:
        if job == 3:
            raise ValueError(job)
        return job

    results = ThreadRunner(2).map(work, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)


def test_jobs_whose_results_nobody_waits_for_are_not_started() -> None:
    started: list[int] = []
    second_runs, second_may_end = threading.Event(), threading.Event()

    def work(job: int) -> None:
        started.append(job)
        if job == 1:
            second_runs.set()
            assert second_may_end.wait(10)

    results = ThreadRunner(1).map(work, range(10))
    next(results)
    assert second_runs.wait(10)
    # Closing waits for the running job, and has cancelled the one behind it by then.
    threading.Timer(0.5, second_may_end.set).start()
    results.close()
    assert started == [0, 1]
