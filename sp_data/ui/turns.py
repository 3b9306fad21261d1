"""One draws at a time; the others wait in the order in which they came."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from sp_data.errors import UsageError

MAX_WAITING = 20


class Turns:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    def wake(self) -> None:
        """Have those who wait look whether they still want to."""
        with self._changed:
            self._changed.notify_all()

    @contextlib.contextmanager
    def turn(self, check: Callable[[], None], on_wait: Callable[[int], None]) -> Iterator[None]:
        """Within the context it is this caller's turn.

        `check` is called while waiting, and may raise to leave the line. `on_wait` is told how many are before.
        Raises UsageError if MAX_WAITING wait already.
        """
        ticket = object()
        with self._changed:
            if len(self._line) > MAX_WAITING:
                raise UsageError(f"{MAX_WAITING} drawings wait already; try again in a while")
            self._line.append(ticket)
        try:
            with self._changed:
                while (num_before := self._line.index(ticket)) > 0:
                    # Before waiting: who cancelled just now would not be woken again.
                    check()
                    on_wait(num_before)
                    self._changed.wait()
                check()
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()
