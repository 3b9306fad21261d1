"""Items made ahead in a thread: the same ones in the same order, and the same error."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sp_data.runtime.prefetch import ahead


def test_items_come_in_their_order_and_all_of_them() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("cut")

    taken = ahead(items(), 5)
    assert next(taken) == 1
    with pytest.raises(OSError, match="cut"):
        next(taken)


def test_no_more_than_the_depth_is_made_ahead() -> None:
    numbers: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            numbers.append(number)
            yield number

    taken = ahead(items(), 2)
    assert next(taken) == 0
    # One taken, two waiting, one that the thread holds.
    assert len(numbers) <= 4
    taken.close()


def test_closing_early_ends_the_thread_and_the_source_can_be_closed() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    source = items()
    taken = ahead(source, 1)
    next(taken)
    taken.close()
    source.close()
    assert closed.is_set()
    assert all(thread.name != "ahead" for thread in threading.enumerate())
