"""Progress of a long task as a Prefect artifact, beside whoever looks on in this process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from sp_data.runtime.progress import Progress

log = logging.getLogger("sp_data.tasks")

EVERY_S = 5.0
"""An update costs some 30 ms and one request."""


class ProgressArtifact:
    """A bar in the Prefect UI."""

    def __init__(self, key: str, also: Progress) -> None:
        self._key, self._also = key, also
        self._artifact: UUID | None = None
        self._total, self._done, self._shown_at = 0, 0, 0.0

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self._also.begin(stage, total, unit)
        if total:
            self._total, self._done = total, 0
            with self._never_in_the_way():
                made = create_progress_artifact(0.0, key=self._key, description=f"{stage}: {total:,} {unit}")
                self._artifact = made if isinstance(made, UUID) else None

    def advance(self, count: int = 1) -> None:
        self._also.advance(count)
        self._done += count
        now = time.monotonic()
        if self._artifact and (now - self._shown_at >= EVERY_S or self._done >= self._total):
            self._shown_at = now
            with self._never_in_the_way():
                update_progress_artifact(self._artifact, progress=min(100.0, 100 * self._done / self._total))

    @contextlib.contextmanager
    def _never_in_the_way(self) -> Iterator[None]:
        """A server that is restarted shall not end a training of days: the bar stops, and the log says so."""
        try:
            yield
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._artifact = None
            log.warning("%s stands still: the Prefect server did not take it (%s)", self._key, error)
