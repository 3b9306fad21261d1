"""The samples of one split of a verified dataset, one by one and in any order.

    Samples[i] = {"key": "000070042", "caption": "a kid in …", "image": (3, size, size) uint8,
                  "image_embed": (dim,) float32, "text_embed": (dim,) float32}

It follows the dataset manifest shard by shard: the tar's key names the row of the reordered embeddings. Nothing is held
in memory but how many samples each shard has; places and embeddings are mapped, pictures are read when they are asked
for. Every file that is read from a tar shows its name first, so a picture that is not its key's is an error.

In which order they are taken, and by which process, is `sp_data.training.order`'s.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from sp_data.dataset.loader.open_shard import OpenShard, Place, ShardFiles, map_rows
from sp_data.dataset.loader.tar_index import find_places, index_path, read_places, to_npy
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS, key_numbers
from sp_data.errors import CorruptFile, LakeError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest

log = logging.getLogger(__name__)

FILES_A_SHARD = 4
"""Open while a shard is: its tar, two embeddings and its places (Python keeps a descriptor of what it maps)."""
MAX_OPEN_SHARDS = 4096


class Sample(TypedDict, total=False):
    key: str
    image: torch.Tensor
    image_embed: torch.Tensor
    text_embed: torch.Tensor
    caption: str


class Samples(Dataset[Sample]):
    """A split's samples; `image_size_px` None leaves the pictures unread. Close it, or use it as a context.

    It may be handed to processes that read ahead, forked or spawned, while it is open here. One thread each.
    """

    def __init__(self, verified: Manifest, lake: Lake, split: str, image_size_px: int | None = None) -> None:
        """Raises StageNotDone if a file of the dataset is missing, DataError if one contradicts its shard."""
        self.image_size_px = image_size_px
        self.layout = KeyLayout.parse(verified.details["layout"])
        self._stack = contextlib.ExitStack()
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._max_open = max_open_shards()
        self._shards: list[ShardFiles] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._ends = self._find(verified, lake, split)
            undo.pop_all()

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
        self._stack.close()

    def __getstate__(self) -> dict[str, Any]:
        # Copies of a remote lake's files stay this process's own to remove; descriptors cannot travel.
        return {**self.__dict__, "_stack": contextlib.ExitStack(), "_open": OrderedDict()}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        """Raises CorruptFile if a file is not what it was when its shard was indexed."""
        shard, key, place = self._at(index)
        sample = Sample(
            key=key,
            caption=bytes(shard.read(key, "txt", place.txt, place.txt_bytes)).decode("utf-8"),
            image_embed=shard.embedding(key, "img_emb", place.row),
            text_embed=shard.embedding(key, "text_emb", place.row),
        )
        if self.image_size_px is not None:
            sample["image"] = shard.picture(key, place, self.image_size_px)
        return sample

    def variants(self, index: int) -> tuple[str, ...]:
        """Other captions of a sample, as curate made them. `text_embed` is of none of them: it is the caption's."""
        shard, key, place = self._at(index)
        if not place.json_bytes:
            return ()
        try:
            said = json.loads(bytes(shard.read(key, "json", place.json, place.json_bytes)))
            return tuple(json.loads(said.get("variants") or "[]"))
        except ValueError as error:
            raise CorruptFile(f"{shard.files.name}: {key}.json cannot be read ({error})") from error

    def _find(self, verified: Manifest, lake: Lake, split: str) -> npt.NDArray[np.int64]:
        """Look at every shard of the split; returns how many samples there are up to the end of each."""
        tombstones = pa.array(sorted(verified.details["tombstones"]), pa.string())
        numbers, indices = self.layout.split_numbers(key_numbers(tombstones, self.layout.width))
        kept = lake.sizes("index")
        counts = []
        for listed in verified.details["shards"]:
            if listed["split"] == split:
                first, last = np.searchsorted(numbers, [listed["number"], listed["number"] + 1])
                counts.append(self._add(listed, lake, int(verified.details["dim"]), indices[first:last], kept))
        return np.cumsum(counts, dtype=np.int64)

    def _add(
        self, listed: dict[str, Any], lake: Lake, dim: int, dead: npt.NDArray[np.int64], kept: dict[str, int]
    ) -> int:
        tar, image, text = (self._local(lake, listed[name]["path"]) for name in ("tar", *EMBEDDING_KINDS))
        shape = (int(listed["num_rows"]), dim)
        index = index_path(listed, self.layout)
        path = self._stack.enter_context(lake.local(index)) if index in kept else None
        places = read_places(path) if path else None
        if path is None or places is None:
            places = find_places(tar, [map_rows(one, shape) for one in (image, text)], listed, self.layout)
            path = self._keep(to_npy(places), lake, index)
        alive = np.flatnonzero(~np.isin(places["row"], dead)).astype(np.uint32) if len(dead) else None
        files = ShardFiles(listed["number"], listed["tar"]["path"], tar, (image, text), shape, path, alive)
        self._shards.append(files)
        # Opened at once: a file that contradicts the others is named now, and not in the middle of a training.
        self._shard(len(self._shards) - 1)
        return len(places) if alive is None else len(alive)

    def _local(self, lake: Lake, path: str) -> Path:
        if not lake.exists(path):
            raise StageNotDone(f"{lake.full(path)} is missing; run the dataset again: what was lost is made again")
        return self._stack.enter_context(lake.local(path))

    def _keep(self, data: bytes, lake: Lake, path: str) -> Path:
        try:
            lake.write_bytes(path, data)
        except LakeError as error:
            log.warning("the places of samples are not kept for the next time: %s", error)
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-data-index-")))
            (folder / "places.npy").write_bytes(data)
            return folder / "places.npy"
        return self._stack.enter_context(lake.local(path))

    def _at(self, index: int) -> tuple[OpenShard, str, Place]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shard(number)
        place = shard.place(index - (int(self._ends[number - 1]) if number else 0))
        return shard, self.layout.key(shard.files.number, place.row), place

    def _shard(self, number: int) -> OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        while len(self._open) >= self._max_open:
            self._open.popitem(last=False)[1].close()
        self._open[number] = OpenShard(self._shards[number])
        return self._open[number]


def max_open_shards() -> int:
    """A quarter of the descriptors that this process may open, so that there is room for a second split."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return MAX_OPEN_SHARDS
    return max(1, min(MAX_OPEN_SHARDS, allowed // 4 // FILES_A_SHARD))
