"""A call in a child ends, whatever its parser does, and the next call is answered."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_data.runtime import bounded
from sp_data.runtime.bounded import BoundedWorker, DoesNotStart, GivenUp


@pytest.fixture
def worker(monkeypatch) -> Iterator[BoundedWorker]:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    worker = BoundedWorker("bounded_child", cpu_s=0.3)
    yield worker
    worker.close()


def test_calls_are_answered_by_one_child(worker):
    assert worker.call("a") == b"a"
    child = worker._child
    assert worker.call("b" * (3 << 20)) == b"b" * (3 << 20)
    assert worker.call("print") == b"print"
    assert worker._child is child


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("spin", "it takes more than 0.3 s to read"),
        ("crash", "its reader ended with status -11"),
        ("recurse", "RecursionError: maximum recursion depth exceeded"),
        ("memory", "MemoryError:"),
        ("raise", "ValueError: two lines[2J"),
    ],
)
def test_what_goes_wrong_is_the_texts_reason_and_the_next_call_is_answered(worker, request_, reason):
    started = time.monotonic()
    with pytest.raises(GivenUp) as caught:
        worker.call(request_)
    assert str(caught.value).startswith(reason)
    assert time.monotonic() - started < 20
    assert worker.call("next") == b"next"


def test_a_child_that_only_waits_is_given_up_too(worker, monkeypatch):
    monkeypatch.setattr(bounded, "WALL_FACTOR", 3)
    with pytest.raises(GivenUp, match=r"it takes more than 0\.9 s to read"):
        worker.call("sleep")
    assert worker.call("next") == b"next"


def test_when_much_time_was_lost_each_call_gets_less(worker, monkeypatch):
    monkeypatch.setattr(bounded, "PATIENCE_S", 0.2)
    monkeypatch.setattr(bounded, "SHORT_S", 0.1)
    for limit in ("0.3", "0.1"):
        with pytest.raises(GivenUp, match=f"it takes more than {limit} s"):
            worker.call("spin")


def test_ctrl_c_ends_the_wait(worker):
    worker = BoundedWorker("bounded_child", cpu_s=30)
    assert worker.call("a") == b"a"
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.call("spin")
    assert time.monotonic() - started < 10
    # The answer of the interrupted call is not taken for the next one's.
    assert worker.call("b") == b"b"
    worker.close()


def test_a_child_that_ended_meanwhile_is_started_again(worker):
    worker.call("a")
    assert worker._child is not None
    worker._child.kill()
    assert worker.call("b") == b"b"


def test_the_thread_that_started_the_child_may_end(worker):
    thread = threading.Thread(target=worker.call, args=("a",))
    thread.start()
    thread.join()
    assert worker.call("b") == b"b"


def test_a_fork_has_a_child_of_its_own(worker):
    worker.call("a")
    assert worker._child is not None
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put((worker.call("from a fork"), worker._child.pid)))
    process.start()
    answer, pid = answers.get()
    process.join()
    assert answer == b"from a fork"
    assert pid != worker._child.pid
    assert worker.call("b") == b"b"


def test_a_child_that_does_not_start_is_an_error_and_no_texts_fault():
    with pytest.raises(DoesNotStart, match=r"python -m no_such_module does not start: .*no_such_module"):
        BoundedWorker("no_such_module", cpu_s=1).call("a")
