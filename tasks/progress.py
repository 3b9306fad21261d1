"""Progress of a long task as a Prefect artifact, beside whoever looks on in this process."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from sp_data.progress import Progress

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
            made = create_progress_artifact(0.0, key=self._key, description=f"{stage}: {total:,} {unit}")
            self._artifact = made if isinstance(made, UUID) else None

    def advance(self, count: int = 1) -> None:
        self._also.advance(count)
        self._done += count
        now = time.monotonic()
        if self._artifact and (now - self._shown_at >= EVERY_S or self._done >= self._total):
            self._shown_at = now
            update_progress_artifact(self._artifact, progress=min(100.0, 100 * self._done / self._total))
