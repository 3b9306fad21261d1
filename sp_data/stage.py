"""What every stage shares: the description of one run, and the skeleton around its work.

    def curate(run: StageRun) -> StageResult:
        return run.once(lambda: _curate(run))

`once` is the skeleton: take the writer's lock, stop if the stage is done, do the work, publish the manifest, and make
it the latest. The list of stages is in pipeline.py, which makes a StageRun from an entry of the list.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

from sp_data import manifest as manifests
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import Recipe
from sp_data.runtime.jobs import JobRunner
from sp_data.runtime.progress import SILENT, Progress

log = logging.getLogger(__name__)

State = Literal["done", "unchanged"]


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage's manifest, and whether this run made it (`done`) or found it there (`unchanged`)."""

    manifest: Manifest
    state: State


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage made: everything in its manifest that was not known before the work."""

    counts: Counts
    files: list[FileEntry]
    summary: str
    """What came out, in a few words: 'kept 5 of 6 pictures'. It is logged once the manifest is published."""
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Library -> version; `library_versions` gives them."""


@dataclass(frozen=True)
class StageRun:
    """One run of a stage: its recipe and inputs, the lake it writes to, and where it reports progress."""

    stage: str
    version: int
    """The stage's own version, from the list of stages."""
    recipe: Recipe
    identity_fields: Mapping[str, Any]
    """The parts of the recipe that name the result, as plain JSON values."""
    inputs: Mapping[str, Manifest]
    """Input stage -> its manifest."""
    lake: Lake
    progress: Progress = SILENT
    runner: JobRunner | None = None
    """Runs the jobs of a stage that is split into jobs; None: threads of this process."""

    @cached_property
    def identity(self) -> str:
        """sha256 of what this run is to make; known before the work."""
        return manifests.identity_of(self.stage, self.version, self.identity_fields, self.input_digests)

    @property
    def input_digests(self) -> dict[str, str]:
        return {stage: manifest.digest for stage, manifest in self.inputs.items()}

    def done(self) -> Manifest | None:
        """The manifest of this identity, if its files are there with their sizes."""
        return manifests.is_done(self.lake, self.stage, self.identity)

    def newest(self) -> Manifest | None:
        """The newest manifest of the stage, whatever it was made from."""
        return manifests.latest(self.lake, self.stage)

    def unchanged(self, manifest: Manifest) -> StageResult:
        """The result for a manifest that is done; makes it the latest."""
        manifests.make_latest(self.lake, manifest)
        return StageResult(manifest, "unchanged")

    def manifest_of(self, output: StageOutput) -> Manifest:
        """The manifest of what was made; nothing is written."""
        return Manifest.make(
            stage=self.stage,
            version=self.version,
            recipe=self.identity_fields,
            inputs=self.input_digests,
            counts=output.counts,
            files=output.files,
            details=output.details,
            versions=output.versions,
            previous=self.newest(),
        )

    def publish(self, output: StageOutput) -> StageResult:
        """Publish the manifest, which makes the stage done. Its files must be in the lake already."""
        return self.publish_manifest(self.manifest_of(output), output.summary)

    def publish_manifest(self, manifest: Manifest, summary: str) -> StageResult:
        """The same for a manifest that `manifest_of` made."""
        manifests.publish(self.lake, manifest)
        log.info("%s: %s", self.stage, summary)
        return StageResult(manifest, "done")

    def once(
        self,
        work: Callable[[], StageOutput],
        *,
        is_whole: Callable[[Manifest], bool] = lambda _: True,
        again: bool = False,
        part: str | None = None,
    ) -> StageResult:
        """Do the work unless it is done already, and publish its output, as the only writer.

        `is_whole`: whether the files that a manifest needs but does not list are there too. `again`: work even if it
        is done. `part`: the part of the dataset's folder to lock; None: the whole dataset.

        Raises LakeBusy, and what the work raises.
        """
        with self.lake.writer(part) if part else self.lake.writer():
            manifest = self.done()
            if manifest and not again and is_whole(manifest):
                return self.unchanged(manifest)
            return self.publish(work())


def library_versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, with Python's own and sp-data's. Raises PackageNotFoundError."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("sp-data", *packages)}
