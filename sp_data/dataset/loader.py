"""The samples of one split of a verified dataset, one by one and in any order.

    Samples[i] = {"image": (3, size, size) float32 in 0..1, "image_embed": (dim,), "text_embed": (dim,) float32,
                  "caption": "a kid in …"}

It follows the dataset manifest shard by shard: the tar's key names the row of the reordered embeddings. Nothing is held
in memory but where each picture begins; embeddings are mapped, pictures are read when they are asked for.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from sp_data.errors import CorruptFile, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest


class Sample(TypedDict, total=False):
    image: torch.Tensor
    image_embed: torch.Tensor
    text_embed: torch.Tensor
    caption: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: its row of the shard's embeddings, and its picture and caption in the tar (offset, size)."""

    key: str
    shard: int
    """Position in the list of opened shards, not the shard's number."""
    row: int
    picture: tuple[int, int]
    caption: tuple[int, int]


@dataclass(frozen=True, slots=True)
class OpenShard:
    tar: Path
    image: npt.NDArray[Any]
    text: npt.NDArray[Any]


class Samples(Dataset[Sample]):
    """A split's samples; `image_size_px` None leaves the pictures unread. Close it, or use it as a context."""

    def __init__(self, verified: Manifest, lake: Lake, split: str, image_size_px: int | None = None) -> None:
        """Raises StageNotDone if a file of the dataset is missing, CorruptFile if one contradicts its shard."""
        self.image_size_px = image_size_px
        self.places: list[Place] = []
        self._stack = contextlib.ExitStack()
        self._shards: list[OpenShard] = []
        self._files: dict[tuple[int, Path], int] = {}
        layout = KeyLayout.parse(verified.details["layout"])
        dead = set(verified.details["tombstones"])
        for listed in verified.details["shards"]:
            if listed["split"] == split:
                self._open(listed, lake, layout, int(verified.details["dim"]), dead)

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        self._stack.close()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place = self.places[index]
        shard = self._shards[place.shard]
        sample = Sample(
            image_embed=torch.from_numpy(shard.image[place.row].astype(np.float32)),
            text_embed=torch.from_numpy(shard.text[place.row].astype(np.float32)),
            caption=self._read(shard.tar, place.caption).decode("utf-8"),
        )
        if self.image_size_px is not None:
            sample["image"] = self._picture(shard.tar, place, self.image_size_px)
        return sample

    def _open(self, listed: dict[str, Any], lake: Lake, layout: KeyLayout, dim: int, dead: set[str]) -> None:
        paths = {name: self._local(lake, listed[name]["path"]) for name in ("tar", "img_emb", "text_emb")}
        rows = {}
        for kind in ("img_emb", "text_emb"):
            rows[kind] = _mapped(paths[kind], listed[kind]["path"])
            if rows[kind].shape != (listed["num_rows"], dim):
                raise CorruptFile(
                    f"{listed[kind]['path']} holds {rows[kind].shape}, the dataset manifest says "
                    f"({listed['num_rows']}, {dim}); run `sp-data verify`"
                )
        position = len(self._shards)
        self._shards.append(OpenShard(paths["tar"], rows["img_emb"], rows["text_emb"]))
        for key, members in _members(paths["tar"], listed["tar"]["path"]):
            number, row = layout.split(key)
            if number != listed["number"] or row >= listed["num_rows"]:
                raise CorruptFile(f"{listed['tar']['path']}: key {key} is of another shard; run `sp-data verify`")
            # A picture that could not be embedded has a row of zeros: there is nothing to learn from it.
            if key not in dead and {"jpg", "txt"} <= members.keys() and rows["img_emb"][row].any():
                self.places.append(Place(key, position, row, members["jpg"], members["txt"]))

    def _local(self, lake: Lake, path: str) -> Path:
        if not lake.exists(path):
            raise StageNotDone(f"{lake.full(path)} is missing; run the dataset again: what was lost is made again")
        return self._stack.enter_context(lake.local(path))

    def _read(self, tar: Path, where: tuple[int, int]) -> bytes:
        # A descriptor a process: loader processes that share one by fork would still be fine (pread has no position),
        # but one that is spawned has to open its own.
        mine = (os.getpid(), tar)
        if mine not in self._files:
            self._files[mine] = os.open(tar, os.O_RDONLY)
        offset, size = where
        return os.pread(self._files[mine], size, offset)

    def _picture(self, tar: Path, place: Place, size_px: int) -> torch.Tensor:
        with Image.open(io.BytesIO(self._read(tar, place.picture))) as opened:
            picture = opened.convert("RGB")
        if picture.size != (size_px, size_px):
            picture = _square(picture).resize((size_px, size_px), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _mapped(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise CorruptFile(f"{name} is no array ({error}); run `sp-data verify`") from error
    return mapped


def _square(picture: Image.Image) -> Image.Image:
    """A picture that is not square (resize_mode `keep_ratio`) on a white square."""
    if picture.width == picture.height:
        return picture
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _members(tar: Path, name: str) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Key -> {extension: (offset, size)}, in the tar's order."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(tar) as opened:
            for member in opened:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise CorruptFile(f"{name} is no tar ({error}); run `sp-data verify --deep`") from error
    yield from found.items()
