"""Manifests: what each stage hands on. Typed, hashed, published last.

A manifest is a snapshot: it lists the files of a stage and carries two hashes.
`identity` (known before the work) says what is covered: the stage, its version, the recipe part it read, its inputs.
`digest` (known after) says what was made: the bytes of the files, the counts and the details. It is the lineage.

A stage is done exactly when a manifest of its identity exists and the files are there with their sizes.
A part is the same for one shard of a stage in progress, so that a killed run resumes where it stopped.

    manifests/shard/3f5a….json      by identity
    manifests/shard/latest.json     the newest one, a full copy
    manifests/shard/parts/00007.json
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sp_data.canonical import digest_of
from sp_data.errors import CorruptFile, MadeByNewer, reason_of
from sp_data.lake import FileEntry, Lake

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Of a folder or a file, without a path."""


MAX_BYTES = 1 << 30
"""Of a manifest: one of a hundred thousand shards has some 100 MB."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Counts(Frozen):
    """in = out + dropped, always: no sample leaves without a reason."""

    in_: int = Field(alias="in", ge=0)
    out: int = Field(ge=0)
    dropped: dict[str, int] = {}
    """Reason -> number of samples."""

    @model_validator(mode="after")
    def _check_balance(self) -> Self:
        if self.in_ != self.out + sum(self.dropped.values()):
            raise ValueError(f"{self.in_} in, {self.out} out, {self.dropped} dropped: expected in = out + dropped")
        return self

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())


class ShardEntry(BaseModel):
    """What every stage after curate says of a shard."""

    number: int = Field(ge=0, lt=10**9)
    split: str
    num_rows: int = Field(ge=0, lt=10**9)
    num_samples: int = Field(ge=0, lt=10**9)


class FileOfShard(BaseModel):
    path: str
    sha256: str


class VerifiedShard(ShardEntry):
    """A shard of the dataset manifest, with its files."""

    tar: FileOfShard
    parquet: FileOfShard
    img_emb: FileOfShard
    text_emb: FileOfShard


class CurateDetails(BaseModel):
    splits: dict[str, int]


class ShardDetails(BaseModel):
    layout: str = Field(pattern=r"^\d{1,2}\+\d{1,2}$")
    tombstones: list[str]
    shards: list[ShardEntry]


class EmbedDetails(BaseModel):
    clip: str = Field(pattern=PLAIN_NAME)
    clip_model: str
    dim: int = Field(ge=1, lt=10**6)
    dtype: Literal["float16"]
    lost: list[str]


class VerifyDetails(ShardDetails):
    shards: list[VerifiedShard]  # type: ignore[assignment]
    clip: str = Field(pattern=PLAIN_NAME)
    dim: int = Field(ge=1, lt=10**6)


DETAILS_OF: dict[str, type[BaseModel]] = {
    "curate": CurateDetails,
    "shard": ShardDetails,
    "embed": EmbedDetails,
    "verify": VerifyDetails,
}
"""Stage -> what its details hold at least, which other stages read."""


class Manifest(Frozen):
    stage: str
    version: int
    """The stage's own version, raised when its output changes for equal inputs."""
    identity: str = Field(pattern=PLAIN_NAME)
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
    """Facts of this stage alone: key layout, shards, CLIP model, ..."""

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
        """A manifest with its identity and digest computed and its files sorted by path.

        `previous` is the newest manifest of the stage. If that has the same identity (a file was lost and made again),
        the snapshot before it is recorded instead.
        """
        sorted_files = tuple(sorted(files, key=lambda entry: entry.path))
        identity = identity_of(stage, version, recipe, inputs)
        previous_identity = previous.identity if previous else None
        if previous and previous.identity == identity:
            previous_identity = previous.previous
        return cls(
            stage=stage,
            version=version,
            identity=identity,
            digest=made_digest(sorted_files, counts, details),
            recipe=dict(recipe),
            inputs=dict(inputs),
            previous=previous_identity,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=dict(versions or {}),
            counts=counts,
            files=sorted_files,
            details=dict(details),
        )

    def file(self, path: str) -> FileEntry:
        """The entry of one file. Raises KeyError."""
        return self._by_path[path]

    @cached_property
    def _by_path(self) -> dict[str, FileEntry]:
        return {entry.path: entry for entry in self.files}

    @property
    def is_as_made(self) -> bool:
        """Whether the digest is that of the files, counts and details: false once the manifest was edited."""
        return made_digest(self.files, self.counts, self.details) == self.digest

    @property
    def num_bytes(self) -> int:
        """Bytes of the files, and of the pictures that a table among them names (too many to list)."""
        return sum(entry.bytes for entry in self.files) + int(self.details.get("num_pictures_bytes", 0))


def identity_of(stage: str, version: int, recipe: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """sha256 of what a stage is to cover."""
    return digest_of({"stage": stage, "version": version, "recipe": dict(recipe), "inputs": dict(inputs)})


def made_digest(files: tuple[FileEntry, ...], counts: Counts, details: Mapping[str, Any]) -> str:
    """sha256 over what was made. Files that contain times (img2dataset's stats) are left out."""
    rows = [[entry.path, entry.bytes, entry.sha256] for entry in files if not entry.timed]
    return digest_of({"files": rows, "counts": counts.model_dump(by_alias=True), "details": dict(details)})


def manifest_path(stage: str, identity: str) -> str:
    return f"manifests/{stage}/{identity}.json"


def publish(lake: Lake, manifest: Manifest) -> None:
    """Write the manifest, which makes the stage done. Its files must be in the lake already."""
    data = _to_json(manifest)
    lake.write_bytes(manifest_path(manifest.stage, manifest.identity), data, durable=True)
    lake.write_bytes(f"manifests/{manifest.stage}/latest.json", data, durable=True)


def make_latest(lake: Lake, manifest: Manifest) -> None:
    """Copy a manifest that exists already to `latest.json`: after a recipe was changed back, say, or after a run that
    made files again was killed between writing the two manifest files."""
    if latest(lake, manifest.stage) != manifest:
        lake.write_bytes(f"manifests/{manifest.stage}/latest.json", _to_json(manifest), durable=True)


def load(lake: Lake, stage: str, identity: str) -> Manifest | None:
    """The manifest of this identity, or None. Raises CorruptFile if it cannot be read as one, MadeByNewer."""
    return _load(lake, manifest_path(stage, identity))


def all_of(lake: Lake, stage: str) -> list[Manifest]:
    """Every manifest of a stage that is stored by identity, in no particular order. Raises CorruptFile."""
    folder = f"manifests/{stage}/"
    names = [path.removeprefix(folder) for path in lake.list(folder.rstrip("/"))]
    manifests = [
        load(lake, stage, name.removesuffix(".json")) for name in names if "/" not in name and name != "latest.json"
    ]
    return [manifest for manifest in manifests if manifest is not None]


def latest(lake: Lake, stage: str) -> Manifest | None:
    """The newest manifest of a stage, or None. Raises CorruptFile if it cannot be read as one, MadeByNewer."""
    return _load(lake, f"manifests/{stage}/latest.json")


def _load(lake: Lake, path: str) -> Manifest | None:
    try:
        manifest = Manifest.model_validate_json(lake.read_bytes(path, MAX_BYTES))
        if manifest.stage in DETAILS_OF:
            DETAILS_OF[manifest.stage].model_validate(manifest.details)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        unknown = [problem["loc"][-1] for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if len(unknown) == error.error_count():
            raise made_by_newer(lake, path, f"it has a field {unknown[0]!r}") from error
        raise CorruptFile(
            f"{lake.full(path)} is not a valid manifest ({first_problem(error)}); delete it and run "
            f"{lake.command('run')}"
        ) from error
    # Its place names it: `manifests/shard/…` holds nothing of another stage.
    if path.split("/")[1] != manifest.stage:
        raise CorruptFile(
            f"{lake.full(path)} is a manifest of {manifest.stage!r}; delete it and run {lake.command('run')}"
        )
    return manifest


def made_by_newer(lake: Lake, path: str, how_seen: str) -> MadeByNewer:
    """The error of a file that this version must leave alone."""
    return MadeByNewer(
        f"{lake.full(path)} was made by a newer version of sp-data ({how_seen}); install that version, or use another "
        "--lake: nothing was changed"
    )


def first_problem(error: ValidationError) -> str:
    """'files.0.path: leaves the dataset': the first problem of a file that does not fit its model, for an error."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    return reason_of(ValueError(f"{place}: {first['msg']}" if place else first["msg"]))


def _to_json(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False).encode() + b"\n"


def missing_files(lake: Lake, files: tuple[FileEntry, ...], *, deep: bool = False) -> list[tuple[FileEntry, str]]:
    """Entries whose file is missing or differs, each with the problem; `deep` reads every byte."""
    problems = []
    sizes = lake.sizes_of(entry.path for entry in files)
    for entry in files:
        size = sizes.get(entry.path)
        if size is None:
            problems.append((entry, "is missing"))
        elif size != entry.bytes:
            problems.append((entry, f"has {size:,} bytes instead of {entry.bytes:,}"))
        elif deep and lake.sha256(entry.path) != entry.sha256:
            problems.append((entry, f"no longer has sha256 {entry.sha256[:12]}…: its bytes were changed"))
    return problems


def is_done(lake: Lake, stage: str, identity: str) -> Manifest | None:
    """The manifest of this identity if all its files are there with their sizes, else None."""
    manifest = load(lake, stage, identity)
    return manifest if manifest is not None and not missing_files(lake, manifest.files) else None


class ShardPart(Frozen):
    """One shard's share of a stage: done when its files are there, whether or not the other shards are."""

    name: str
    identity: str
    files: tuple[FileEntry, ...]
    details: dict[str, Any] = {}


def part_path(stage: str, name: str) -> str:
    return f"manifests/{stage}/parts/{name}.json"


def publish_part(lake: Lake, stage: str, part: ShardPart) -> None:
    lake.write_bytes(part_path(stage, part.name), _to_json(part))


class ShardParts:
    """The parts of a stage that earlier runs left, as they were when this run began. They are read all at once: on an
    object store every look-up is a request."""

    def __init__(self, lake: Lake, stage: str) -> None:
        self._parts: dict[str, ShardPart] = {}
        paths = [path for path in lake.list(f"manifests/{stage}/parts") if path.endswith(".json")]
        for data in lake.read_all(paths):
            # A part only saves work: one that cannot be read counts as missing.
            with contextlib.suppress(ValidationError):
                part = ShardPart.model_validate_json(data)
                self._parts[part.name] = part
        self._sizes = lake.sizes_of(entry.path for part in self._parts.values() for entry in part.files)

    def find(self, name: str, identity: str) -> ShardPart | None:
        """The part of this name if it was made for this identity and its files are there, else None."""
        part = self._parts.get(name)
        if part is None or part.identity != identity:
            return None
        return part if all(self._sizes.get(entry.path) == entry.bytes for entry in part.files) else None
