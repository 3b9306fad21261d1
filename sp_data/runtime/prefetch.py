"""An iterator run ahead of whoever takes its items, in a thread: reading goes on while a model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    What `items` raises is raised here, after the items before it. Left early, the thread ends at its next item.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    left = threading.Event()

    def put(what: Item | _End) -> None:
        while not left.is_set():
            try:
                waiting.put(what, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed over to whoever takes the items, and raised there
            put(_End(error))
        else:
            put(_End(None))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        left.set()
        thread.join()
