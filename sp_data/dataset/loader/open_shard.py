"""One shard, open: its embeddings and places mapped, its pictures and captions read from the tar when asked for."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sp_data.dataset.loader.tar_index import HEADER_BYTES, read_places
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.errors import CorruptFile


class Place(NamedTuple):
    """A record of `places.PLACE`."""

    row: int
    jpg: int
    jpg_bytes: int
    txt: int
    txt_bytes: int
    json: int
    json_bytes: int


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """A shard on this machine. Plain values, so that a process that is spawned can open it too."""

    number: int
    name: str
    """Of the tar, for errors."""
    tar: Path
    rows: tuple[Path, Path]
    """Image and text embeddings."""
    shape: tuple[int, int]
    """Of each of them."""
    places: Path
    alive: npt.NDArray[np.uint32] | None
    """Which of the places are no tombstones; None: all."""


class OpenShard:
    def __init__(self, files: ShardFiles) -> None:
        """Raises CorruptFile if a file is not what the manifest says."""
        self.files = files
        self.rows = dict(zip(EMBEDDING_KINDS, (map_rows(path, files.shape) for path in files.rows), strict=True))
        places = read_places(files.places)
        if places is None:
            raise CorruptFile(f"{files.places} cannot be read any more; delete it, and it is made again")
        self.places = places
        if len(places):
            last = Place._make(places[-1].item())
            if max(last.jpg + last.jpg_bytes, last.txt + last.txt_bytes) > files.tar.stat().st_size:
                raise CorruptFile(f"{files.name} was cut since it was indexed; run `sp-data verify`")
        self.tar = os.open(files.tar, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.tar)

    def place(self, position: int) -> Place:
        """Of the sample at a position among those that are no tombstones."""
        alive = self.files.alive
        return Place._make(self.places[position if alive is None else alive[position]].item())

    def embedding(self, key: str, kind: str, row: int) -> torch.Tensor:
        """`(dim,)` float32. Raises CorruptFile if it is zero: its place would not have been kept."""
        found = self.rows[kind][row]
        if not found.any():
            raise CorruptFile(
                f"{self.files.name}: row {row} of its {kind}, which is that of key {key}, became zero since the shard "
                "was indexed; run `sp-data verify --deep`"
            )
        return torch.from_numpy(found.astype(np.float32))

    def read(self, key: str, extension: str, offset: int, size: int) -> memoryview:
        """A file of a sample. Raises CorruptFile if the tar has another one in its place, or ends inside it."""
        data = bytearray(HEADER_BYTES + size)
        got = os.preadv(self.tar, [data], offset - HEADER_BYTES)
        # The first 100 bytes of a tar's header are the name.
        name = bytes(data[:100]).rstrip(b"\0").decode("utf-8", "replace")
        if name != f"{key}.{extension}" or got != len(data):
            what = f"there is {name!r}" if got == len(data) else "the tar is cut"
            raise CorruptFile(
                f"{self.files.name}: {key}.{extension} is not where it was when the shard was indexed ({what}); run "
                f"`sp-data verify --deep`, and delete {self.files.places.name} in the lake's index/ if it finds nothing"
            )
        return memoryview(data)[HEADER_BYTES:]

    def picture(self, key: str, place: Place, size_px: int) -> torch.Tensor:
        """`(3, size_px, size_px)` uint8. Raises CorruptFile."""
        data = self.read(key, "jpg", place.jpg, place.jpg_bytes)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
                picture = opened if opened.mode == "RGB" else opened.convert("RGB")
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{self.files.name}: {key}.jpg cannot be decoded ({error})") from error
        if picture.size != (size_px, size_px):
            picture = _square(picture).resize((size_px, size_px), Image.Resampling.BICUBIC)
        # Plane by plane, as models take it: cheaper than turning the array around.
        planes = bytearray().join(band.tobytes() for band in picture.split())
        return torch.frombuffer(planes, dtype=torch.uint8).view(3, size_px, size_px)


def map_rows(path: Path, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Embeddings of one shard, mapped. Raises CorruptFile if they are of another shape."""
    try:
        mapped = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise CorruptFile(f"{path} is no array ({error}); run `sp-data verify`") from error
    if mapped.shape != shape:
        raise CorruptFile(f"{path} holds {mapped.shape}, the dataset manifest says {shape}; run `sp-data verify`")
    return np.asarray(mapped)


def _square(picture: Image.Image) -> Image.Image:
    """A picture that is not square (resize_mode `keep_ratio`) on a white square."""
    if picture.width == picture.height:
        return picture
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
