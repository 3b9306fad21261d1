"""What a verification sees: a dataset's manifests, its shards as each of their files tells them, and the problems."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.dataset.shards.stage import read_rows
from sp_data.errors import CorruptFile, LayoutError, Problem
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.parquet import read_table


@dataclass(frozen=True, slots=True)
class ShardRows:
    """One shard, as each of its files tells it."""

    number: int
    name: str
    split: str
    num_rows: int
    parquet: list[dict[str, Any]]
    """img2dataset's, one a planned row, in key order."""
    embedded: dict[str, tuple[int, str]]
    """Key -> (row in the partition, caption), from the embeddings' metadata."""
    twice: tuple[str, ...]
    """Keys that the metadata names more than once."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What there is to know of a dataset to look at one of its shards: plain values, so that it can travel."""

    url: str
    name: str
    layout: KeyLayout
    clip: str
    dim: int
    dtype: str
    deep: bool

    @classmethod
    def of(cls, road: dict[str, Manifest], lake: Lake, *, deep: bool) -> Dataset:
        embedded = road["embed"].details
        return cls(
            url=lake.url,
            name=lake.dataset,
            layout=KeyLayout.parse(road["shard"].details["layout"]),
            clip=str(embedded["clip"]),
            dim=int(embedded["dim"]),
            dtype=str(embedded["dtype"]),
            deep=deep,
        )

    def reordered_path(self, kind: str, name: str) -> str:
        return f"reordered/{self.clip}/{kind}/{kind}_{name}.npy"

    def embedded_path(self, kind: str, name: str) -> str:
        return f"embeddings/{self.clip}/{kind}/{kind}_{name}.npy"

    def metadata_path(self, name: str) -> str:
        return f"embeddings/{self.clip}/metadata/metadata_{name}.parquet"


@dataclass(slots=True)
class CheckContext:
    """What is seen of a dataset, or of one shard of it, and the problems so far."""

    of: Dataset
    lake: Lake
    problems: list[Problem] = field(default_factory=list)
    num_checked: int = 0

    @classmethod
    def at(cls, dataset: Dataset) -> CheckContext:
        return cls(dataset, Lake(dataset.url, dataset.name))

    def found(self, check: str, message: str, *, file: str = "", key: str = "") -> None:
        self.problems.append(Problem(check, file, key, message))


@contextlib.contextmanager
def as_problem(look: CheckContext, check: str, named: Collection[str] = ()) -> Iterator[None]:
    """A file that cannot be read is a problem to list beside the others, not the end of the verification; one that is
    missing is not listed again if it is `named` already."""
    try:
        yield
    except (CorruptFile, LayoutError) as error:
        look.found(check, str(error))
    except FileNotFoundError as error:
        if not any(str(error.filename).endswith(path) for path in named):
            look.found(check, f"{error.filename} is missing")


def read_shard(look: CheckContext, listed: dict[str, Any]) -> ShardRows:
    """One shard's parquet and metadata. Raises CorruptFile."""
    name = look.of.layout.shard_name(listed["number"])
    embedded: dict[str, tuple[int, str]] = {}
    twice: list[str] = []
    metadata = look.of.metadata_path(name)
    if look.lake.exists(metadata):
        with look.lake.local(metadata) as path:
            table = read_table(path, metadata, ["image_path", "caption"])
        for row, said in enumerate(table.to_pylist()):
            if said["image_path"] in embedded:
                twice.append(said["image_path"])
            embedded[said["image_path"]] = (row, said["caption"])
    rows = read_rows(look.lake, f"shards/{name}.parquet")
    return ShardRows(listed["number"], name, listed["split"], listed["num_rows"], rows, embedded, tuple(twice))


def load_rows(look: CheckContext, path: str) -> npt.NDArray[np.floating[Any]]:
    """A .npy file of the lake. Raises CorruptFile."""
    with look.lake.local(path) as local:
        try:
            rows: npt.NDArray[np.floating[Any]] = np.load(local)
        except (ValueError, OSError, EOFError) as error:
            raise CorruptFile(f"{look.lake.full(path)} is no whole .npy file ({error})") from error
    return rows
