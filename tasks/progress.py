"""Progress of a long task as Prefect artifacts, beside the progress bar of this process."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from uuid import UUID

import httpx
from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from sp_data.foreign_text import markdown
from sp_data.runtime.contact_sheet import data_uri, jpeg
from sp_data.runtime.progress import Progress

log = logging.getLogger("sp_data.tasks")

EVERY_S = 5.0
"""An update costs some 30 ms and one request."""


class ProgressArtifact:
    """A progress bar in the Prefect UI, and the pictures of the latest checkpoint; `other` gets the same."""

    def __init__(self, key: str, other: Progress) -> None:
        self._key, self._other = key, other
        self._artifact_id: UUID | None = None
        self._total, self._done, self._shown_at = 0, 0, 0.0

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self._other.begin(stage, total, unit)
        if total:
            self._total, self._done = total, 0
            with self._errors_logged():
                artifact_id = create_progress_artifact(
                    0.0, key=self._key, description=markdown(f"{stage}: {total:,} {unit}")
                )
                self._artifact_id = artifact_id if isinstance(artifact_id, UUID) else None

    def advance(self, count: int = 1) -> None:
        self._other.advance(count)
        self._done += count
        now = time.monotonic()
        if self._artifact_id and (now - self._shown_at >= EVERY_S or self._done >= self._total):
            self._shown_at = now
            with self._errors_logged():
                update_progress_artifact(self._artifact_id, progress=min(100.0, 100 * self._done / self._total))

    def show(self, title: str, png: bytes) -> None:
        self._other.show(title, png)
        with self._errors_logged(), Image.open(io.BytesIO(png)) as picture:
            create_markdown_artifact(
                key=f"{self._key}-pictures",
                markdown=f"![{markdown(title)}]({data_uri(jpeg(picture.convert('RGB'), 75))})\n",
                description=f"{markdown(title)}: what each checkpoint draws",
            )

    @contextlib.contextmanager
    def _errors_logged(self) -> Iterator[None]:
        """Keep a restart of the server from ending a training of days: the bar stops, and the log says so."""
        try:
            yield
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._artifact_id = None
            log.warning("progress bar %s stopped: the Prefect server did not take an update (%s)", self._key, error)
