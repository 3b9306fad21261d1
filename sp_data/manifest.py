"""Manifests: what each stage hands on. Typed, hashed, published last.

A manifest is a snapshot. It lists the files a stage stands for and answers two questions:
`identity` (known before the work): what is covered, from the stage, its version, the recipe part it read, its inputs;
`digest` (known after): what was made, from the bytes of the files, the counts and the details. It is the lineage.

A stage is done exactly when a manifest of its identity exists and its files are there with their sizes.
A part is the same idea for one shard of a stage in progress, so that a killed run goes on where it was.

    manifests/shard/3f5a….json      by identity
    manifests/shard/latest.json     the newest one, whole
    manifests/shard/parts/00007.json
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sp_data.canonical import digest_of
from sp_data.errors import CorruptFile
from sp_data.lake import FileEntry, Lake


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Counts(Frozen):
    """in = out + dropped, always: no sample leaves without a reason."""

    in_: int = Field(alias="in", ge=0)
    out: int = Field(ge=0)
    dropped: dict[str, int] = {}
    """Reason -> how many."""

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        if self.in_ != self.out + sum(self.dropped.values()):
            raise ValueError(f"{self.in_} in, {self.out} out, {self.dropped} dropped: does not add up")
        return self

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())


class Manifest(Frozen):
    stage: str
    version: int
    """The stage's own version: raised when its output changes for equal inputs."""
    identity: str
    digest: str
    recipe: dict[str, Any]
    """The part of the recipe that the stage read."""
    inputs: dict[str, str]
    """Input stage -> digest of its manifest."""
    previous: str | None = None
    """Identity of the snapshot before this one."""
    made_at: str
    versions: dict[str, str] = {}
    """Library -> version, and the numeric precision. Recorded; part of neither identity nor digest."""
    counts: Counts
    files: tuple[FileEntry, ...]
    details: dict[str, Any] = {}
    """What only this stage has to say: key layout, shards, CLIP model, ..."""

    @classmethod
    def make(
        cls,
        *,
        stage: str,
        version: int,
        recipe: Mapping[str, Any],
        inputs: Mapping[str, str],
        counts: Counts,
        files: list[FileEntry],
        details: Mapping[str, Any],
        versions: Mapping[str, str] | None = None,
        previous: Manifest | None = None,
    ) -> Manifest:
        """A manifest with its identity and digest worked out and its files sorted by path.

        `previous` is the newest manifest of the stage. Where that is this one's own earlier self (a file was lost and
        made again), the snapshot before that one is meant.
        """
        listed = tuple(sorted(files, key=lambda entry: entry.path))
        identity = identity_of(stage, version, recipe, inputs)
        before = previous.identity if previous else None
        if previous and previous.identity == identity:
            before = previous.previous
        return cls(
            stage=stage,
            version=version,
            identity=identity,
            digest=made_digest(listed, counts, details),
            recipe=dict(recipe),
            inputs=dict(inputs),
            previous=before,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=dict(versions or {}),
            counts=counts,
            files=listed,
            details=dict(details),
        )

    def file(self, path: str) -> FileEntry:
        """The entry of one file. Raises KeyError."""
        return self._of_path[path]

    @cached_property
    def _of_path(self) -> dict[str, FileEntry]:
        return {entry.path: entry for entry in self.files}

    @property
    def is_as_made(self) -> bool:
        """Whether files, counts and details are those that the digest was taken of."""
        return made_digest(self.files, self.counts, self.details) == self.digest

    @property
    def num_bytes(self) -> int:
        """Of the files, and of the pictures that a table among them counts on (they are too many to be listed)."""
        return sum(entry.bytes for entry in self.files) + int(self.details.get("num_pictures_bytes", 0))


def identity_of(stage: str, version: int, recipe: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """sha256 of what a stage is asked to cover."""
    return digest_of({"stage": stage, "version": version, "recipe": dict(recipe), "inputs": dict(inputs)})


def made_digest(files: tuple[FileEntry, ...], counts: Counts, details: Mapping[str, Any]) -> str:
    """sha256 over what was made. Files that carry times (img2dataset's stats) stay outside."""
    rows = [[entry.path, entry.bytes, entry.sha256] for entry in files if not entry.timed]
    return digest_of({"files": rows, "counts": counts.model_dump(by_alias=True), "details": dict(details)})


def manifest_path(stage: str, identity: str) -> str:
    return f"manifests/{stage}/{identity}.json"


def publish(lake: Lake, manifest: Manifest) -> None:
    """Make the stage done. The files must be in the lake already: this comes last."""
    data = _to_json(manifest)
    lake.write_bytes(manifest_path(manifest.stage, manifest.identity), data, durable=True)
    lake.write_bytes(f"manifests/{manifest.stage}/latest.json", data, durable=True)


def make_latest(lake: Lake, manifest: Manifest) -> None:
    """Point `latest.json` at a manifest that exists already (a recipe that was changed back, say; or a kill came
    between the two files of one that has the identity of the one before it)."""
    if latest(lake, manifest.stage) != manifest:
        lake.write_bytes(f"manifests/{manifest.stage}/latest.json", _to_json(manifest), durable=True)


def load(lake: Lake, stage: str, identity: str) -> Manifest | None:
    """The manifest of this identity, or None. Raises CorruptFile if it cannot be read as one."""
    return _load(lake, manifest_path(stage, identity))


def all_of(lake: Lake, stage: str) -> list[Manifest]:
    """Every manifest of a stage by its identity, in no certain order. Raises CorruptFile."""
    folder = f"manifests/{stage}/"
    names = [path.removeprefix(folder) for path in lake.list(folder.rstrip("/"))]
    found = [
        load(lake, stage, name.removesuffix(".json")) for name in names if "/" not in name and name != "latest.json"
    ]
    return [manifest for manifest in found if manifest is not None]


def latest(lake: Lake, stage: str) -> Manifest | None:
    """The newest manifest of a stage, or None. Raises CorruptFile if it cannot be read as one."""
    return _load(lake, f"manifests/{stage}/latest.json")


def _load(lake: Lake, path: str) -> Manifest | None:
    try:
        return Manifest.model_validate_json(lake.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptFile(
            f"{lake.full(path)} is no manifest ({error.errors()[0]['msg']}); delete it and run the stage again"
        ) from error


def _to_json(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False).encode() + b"\n"


def missing_files(lake: Lake, files: tuple[FileEntry, ...], *, deep: bool = False) -> list[tuple[FileEntry, str]]:
    """Entries whose file is not as listed, each with what is wrong with it; `deep` reads every byte."""
    wrong = []
    there = lake.sizes_of(entry.path for entry in files)
    for entry in files:
        size = there.get(entry.path)
        if size is None:
            wrong.append((entry, "is missing"))
        elif size != entry.bytes:
            wrong.append((entry, f"has {size:,} bytes instead of {entry.bytes:,}"))
        elif deep and lake.sha256(entry.path) != entry.sha256:
            wrong.append((entry, f"does not have its sha256 {entry.sha256[:12]}…: its bytes were changed"))
    return wrong


def is_done(lake: Lake, stage: str, identity: str) -> Manifest | None:
    """The manifest of this identity if all its files are there with their sizes, else None."""
    manifest = load(lake, stage, identity)
    return manifest if manifest is not None and not missing_files(lake, manifest.files) else None


class ShardPart(Frozen):
    """One shard's share of a stage: done when its files are there, whatever became of the rest."""

    name: str
    identity: str
    files: tuple[FileEntry, ...]
    details: dict[str, Any] = {}


def part_path(stage: str, name: str) -> str:
    return f"manifests/{stage}/parts/{name}.json"


def publish_part(lake: Lake, stage: str, part: ShardPart) -> None:
    lake.write_bytes(part_path(stage, part.name), _to_json(part))


class ShardParts:
    """The parts of a stage that earlier runs left, as they lay there when it began: read in one go, since on an object
    store every look is a request."""

    def __init__(self, lake: Lake, stage: str) -> None:
        self._parts: dict[str, ShardPart] = {}
        paths = [path for path in lake.list(f"manifests/{stage}/parts") if path.endswith(".json")]
        for data in lake.read_all(paths):
            # A part only saves work. One that cannot be read is one that was not made.
            with contextlib.suppress(ValidationError):
                part = ShardPart.model_validate_json(data)
                self._parts[part.name] = part
        self._there = lake.sizes_of(entry.path for part in self._parts.values() for entry in part.files)

    def find(self, name: str, identity: str) -> ShardPart | None:
        """The part of this name if it was made for this identity and its files are there, else None."""
        part = self._parts.get(name)
        if part is None or part.identity != identity:
            return None
        return part if all(self._there.get(entry.path) == entry.bytes for entry in part.files) else None
