"""One open shard: embeddings and tar index are memory-mapped, pictures and captions are read when asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sp_data.arrays import map_array
from sp_data.dataset.curate.decoding import Refused, decode_rgb
from sp_data.dataset.loader.tar_index import read_index
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.members import HEADER_BYTES
from sp_data.errors import CorruptFile


class IndexRecord(NamedTuple):
    """A record of the index, with the fields of `tar_index.RECORD`."""

    row: int
    jpg: int
    jpg_bytes: int
    txt: int
    txt_bytes: int
    json: int
    json_bytes: int


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The files of a shard on this machine. Plain values, so that a spawned process can open it too."""

    number: int
    name: str
    """The tar's path in the lake, for errors."""
    tar: Path
    rows: tuple[Path, Path]
    """Image and text embeddings."""
    shape: tuple[int, int]
    """`(num_rows, dim)` of each of them."""
    index: Path
    alive: npt.NDArray[np.uint32] | None
    """Positions of the records that have no tombstone; None: all."""
    verify: str
    """The command that checks the dataset, for errors."""


class OpenShard:
    def __init__(self, files: ShardFiles) -> None:
        """Raises CorruptFile if a file is not what the manifest says."""
        self.files = files
        self.rows = dict(
            zip(EMBEDDING_KINDS, (map_rows(path, files.shape, files.verify) for path in files.rows), strict=True)
        )
        records = read_index(files.index)
        if records is None:
            raise CorruptFile(f"{files.index} cannot be read any more; delete it, and it is made again")
        self.records = records
        if len(records):
            last = IndexRecord._make(records[-1].item())
            if max(last.jpg + last.jpg_bytes, last.txt + last.txt_bytes) > files.tar.stat().st_size:
                raise CorruptFile(f"{files.name} was cut since it was indexed; run {files.verify}")
        self.tar = os.open(files.tar, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.tar)

    def record(self, position: int) -> IndexRecord:
        """The record of the sample at this position among those without a tombstone."""
        alive = self.files.alive
        return IndexRecord._make(self.records[position if alive is None else alive[position]].item())

    def embedding(self, key: str, kind: str, row: int) -> torch.Tensor:
        """`(dim,)` float32. Raises CorruptFile if it is zero: such a row is not indexed."""
        values = self.rows[kind][row]
        if not values.any():
            raise CorruptFile(
                f"{self.files.name}: row {row} of its {kind}, which is that of key {key}, became zero since the shard "
                f"was indexed; run {self.files.verify}"
            )
        return torch.from_numpy(values.astype(np.float32))

    def read(self, key: str, extension: str, offset: int, size: int) -> memoryview:
        """A file of a sample. Raises CorruptFile if the tar has another file at this offset, or ends inside it."""
        data = bytearray(HEADER_BYTES + size)
        num_read = os.preadv(self.tar, [data], offset - HEADER_BYTES)
        # The first 100 bytes of a tar header are the file's name.
        name = bytes(data[:100]).rstrip(b"\0").decode("utf-8", "replace")
        if name != f"{key}.{extension}" or num_read != len(data):
            reason = f"there is {name!r}" if num_read == len(data) else "the tar is cut"
            raise CorruptFile(
                f"{self.files.name}: {key}.{extension} is not where it was when the shard was indexed ({reason}); run "
                f"{self.files.verify}, and delete {self.files.index.name} in the lake's index/ if it finds nothing"
            )
        return memoryview(data)[HEADER_BYTES:]

    def picture(self, key: str, record: IndexRecord, size_px: int) -> torch.Tensor:
        """`(3, size_px, size_px)` uint8. Raises CorruptFile."""
        data = self.read(key, "jpg", record.jpg, record.jpg_bytes)
        try:
            picture = decode_rgb(bytes(data))
        except Refused as refusal:
            raise CorruptFile(f"{self.files.name}: {key}.jpg cannot be decoded ({refusal})") from refusal
        if picture.size != (size_px, size_px):
            picture = _square(picture).resize((size_px, size_px), Image.Resampling.BICUBIC)
        # Channel by channel, as models take it: cheaper than transposing the array.
        planes = bytearray().join(band.tobytes() for band in picture.split())
        return torch.frombuffer(planes, dtype=torch.uint8).view(3, size_px, size_px)


def map_rows(path: Path, shape: tuple[int, int], verify: str) -> npt.NDArray[Any]:
    """The embeddings of one shard, memory-mapped; `verify` is the command that an error advises.

    Raises CorruptFile if they are of another shape.
    """
    mapped = map_array(path, cure=f"run {verify}")
    if mapped.shape != shape:
        raise CorruptFile(f"{path} holds {mapped.shape}, the dataset manifest says {shape}; run {verify}")
    return np.asarray(mapped)


def _square(picture: Image.Image) -> Image.Image:
    """The picture, on a white square if it is not square (resize_mode `keep_ratio`)."""
    if picture.width == picture.height:
        return picture
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
