"""What the checks work on: the dataset, one shard as each of its files describes it, and the problems so far."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.arrays import map_array
from sp_data.dataset.shards.stage import read_rows
from sp_data.errors import CorruptFile, LayoutError, Problem
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.parquet import read_table


@dataclass(frozen=True, slots=True)
class ShardRows:
    """One shard, as each of its files describes it."""

    number: int
    name: str
    split: str
    num_rows: int
    parquet: list[dict[str, Any]]
    """img2dataset's rows, one for each planned sample, in key order."""
    embedded: dict[str, tuple[int, str]]
    """Key -> (row in the partition, caption), from the embeddings' metadata."""
    repeated: tuple[str, ...]
    """Keys that the metadata names more than once."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What checking a shard needs to know of its dataset. Plain values, so that it can be sent to another machine."""

    url: str
    name: str
    layout: KeyLayout
    clip: str
    dim: int
    dtype: str
    deep: bool

    @classmethod
    def of(cls, by_stage: dict[str, Manifest], lake: Lake, *, deep: bool) -> Dataset:
        embedded = by_stage["embed"].details
        return cls(
            url=lake.url,
            name=lake.dataset,
            layout=KeyLayout.parse(by_stage["shard"].details["layout"]),
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
    """The dataset that is checked, and the problems found so far, in it or in one of its shards."""

    dataset: Dataset
    lake: Lake
    problems: list[Problem] = field(default_factory=list)
    num_checked: int = 0

    @classmethod
    def at(cls, dataset: Dataset) -> CheckContext:
        return cls(dataset, Lake(dataset.url, dataset.name))

    def add_problem(self, check: str, message: str, *, file: str = "", key: str = "") -> None:
        self.problems.append(Problem(check, file, key, message))


@contextlib.contextmanager
def as_problem(context: CheckContext, check: str, known_missing: Collection[str] = ()) -> Iterator[None]:
    """Record a file that cannot be read, or is missing, as a problem instead of ending the verification.

    A missing file is not recorded again if it is in `known_missing`.
    """
    try:
        yield
    except (CorruptFile, LayoutError) as error:
        context.add_problem(check, str(error))
    except FileNotFoundError as error:
        if not any(str(error.filename).endswith(path) for path in known_missing):
            context.add_problem(check, f"{error.filename} is missing")


def read_shard(context: CheckContext, shard: dict[str, Any]) -> ShardRows:
    """Read the parquet and the embeddings' metadata of one shard of the shard manifest. Raises CorruptFile."""
    name = context.dataset.layout.shard_name(shard["number"])
    embedded: dict[str, tuple[int, str]] = {}
    repeated: list[str] = []
    metadata = context.dataset.metadata_path(name)
    if context.lake.exists(metadata):
        with context.lake.local(metadata) as path:
            table = read_table(path, metadata, ["image_path", "caption"])
        for row, entry in enumerate(table.to_pylist()):
            if entry["image_path"] in embedded:
                repeated.append(entry["image_path"])
            embedded[entry["image_path"]] = (row, entry["caption"])
    rows = read_rows(context.lake, f"shards/{name}.parquet")
    return ShardRows(shard["number"], name, shard["split"], shard["num_rows"], rows, embedded, tuple(repeated))


def load_rows(context: CheckContext, path: str) -> npt.NDArray[np.floating[Any]]:
    """Read a .npy file of the lake. Raises CorruptFile."""
    with context.lake.local(path) as local:
        # In memory: a copy of a remote lake's file ends with this block.
        return np.array(map_array(local, context.lake.full(path)))
