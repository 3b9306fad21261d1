"""One draws at a time, in the order of asking."""

from __future__ import annotations

import threading
import time

import pytest

from sp_data.errors import UsageError
from sp_data.ui import turns as module
from sp_data.ui.turns import Turns


def _pass() -> None:
    pass


def _wait_until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_turns_come_in_the_order_of_asking_and_never_two_at_once() -> None:
    turns, order, at_once = Turns(), [], []
    asked: list[int] = []
    everyone_asked = threading.Event()

    def draw(number: int) -> None:
        with turns.turn(_pass, asked.append):
            everyone_asked.wait(10)
            at_once.append(number)
            assert at_once == [number]
            order.append(number)
            at_once.remove(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=draw, args=(number,)))
        threads[-1].start()
        _wait_until(lambda: len(asked) == len(threads) - 1)
    assert asked == [1, 2, 3]
    everyone_asked.set()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3]


class Left(Exception):
    pass


def test_who_waits_may_leave_and_the_next_one_moves_up() -> None:
    turns, leave, told = Turns(), threading.Event(), []
    first_may_end = threading.Event()

    def first() -> None:
        with turns.turn(_pass, told.append):
            first_may_end.wait(10)

    def second() -> None:
        def check() -> None:
            if leave.is_set():
                raise Left

        with pytest.raises(Left), turns.turn(check, told.append):
            pass

    third_told: list[int] = []

    def third() -> None:
        with turns.turn(_pass, third_told.append):
            pass

    threads = []
    for target in (first, second, third):
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        time.sleep(0.02)
    _wait_until(lambda: third_told == [2])
    leave.set()
    turns.wake()
    _wait_until(lambda: third_told[-1] == 1)
    first_may_end.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_long_line_is_not_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    turns = Turns()
    with turns.turn(_pass, print), pytest.raises(UsageError, match="wait already"), turns.turn(_pass, print):
        pass
    with turns.turn(_pass, print):
        pass
