"""How much visitors' pictures may fill: the oldest go first, and nobody fills the disk."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

MAX_BYTES = 1_000_000_000
"""Of all visitors together."""
MIN_FILE_BYTES = 100_000
"""A small file counts as so many, so that there are never too many files either."""
KEEP_S = 600
"""What is younger may still be drawn from."""

_lock = threading.Lock()


def make_room(folder: Path, num_bytes: int, max_bytes: int = MAX_BYTES) -> bool:
    """Whether `num_bytes` more fit into a folder of uploads; old ones are removed for them."""
    with _lock:
        files = sorted(_files(folder))
        total = sum(size for _, size, _ in files) + max(num_bytes, MIN_FILE_BYTES)
        oldest_kept = time.time() - KEEP_S
        for modified_at, size, path in files:
            if total <= max_bytes or modified_at > oldest_kept:
                break
            # Another one may remove it: Gradio does, after a day.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            total -= size
        return total <= max_bytes


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(when it was written, what it counts as, path) of each file."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file():
                found.append((status.st_mtime, max(status.st_size, MIN_FILE_BYTES), path))
    return found
