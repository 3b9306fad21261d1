"""The samples of one split of a verified dataset, one by one and in any order.

    Samples[i] = {"key": "000070042", "caption": "a kid in …", "image": (3, size, size) uint8,
                  "image_embed": (dim,) float32, "text_embed": (dim,) float32}

The samples come shard by shard, as in the dataset manifest; the key in the tar gives the row of the reordered
embeddings. Only the number of samples of each shard is held in memory: tar indexes and embeddings are memory-mapped,
pictures are read when asked for. The name of every file that is read from a tar is compared with its key, so a picture
of another key is an error.

`sp_data.training.loop.sampler` decides in which order the samples are taken, and by which process.
"""

from __future__ import annotations

import contextlib
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

from sp_data.canonical import parse_json
from sp_data.dataset.loader.open_shard import IndexRecord, OpenShard, ShardFiles, map_rows
from sp_data.dataset.loader.tar_index import index_path, index_tar, read_index, to_npy
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS, key_numbers
from sp_data.errors import CorruptFile, LakeError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest

log = logging.getLogger(__name__)

FILES_A_SHARD = 4
"""Files that an open shard keeps open: tar, two embeddings, tar index (Python keeps a descriptor of what it maps)."""
MAX_OPEN_SHARDS = 4096


class Sample(TypedDict, total=False):
    key: str
    image: torch.Tensor
    image_embed: torch.Tensor
    text_embed: torch.Tensor
    text_encodings: torch.Tensor
    """Only where a training adds it (sp_data.training.words)."""
    caption: str


class Samples(Dataset[Sample]):
    """The samples of a split; with `image_size_px` None pictures are not read. Close it, or use it in a `with`.

    While it is open, it may be passed to forked or spawned processes that read ahead. Use it from one thread a process.
    """

    def __init__(self, verified: Manifest, lake: Lake, split: str, image_size_px: int | None = None) -> None:
        """Raises StageNotDone if a file of the dataset is missing, DataError if a file contradicts its shard."""
        self.image_size_px = image_size_px
        self.layout = KeyLayout.parse(verified.details["layout"])
        self._stack = contextlib.ExitStack()
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._max_open = max_open_shards()
        self._shards: list[ShardFiles] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._ends = self._open_all(verified, lake, split)
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
        # This process alone removes its copies of a remote lake's files; file descriptors cannot be sent.
        return {**self.__dict__, "_stack": contextlib.ExitStack(), "_open": OrderedDict()}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        """Raises CorruptFile if a file changed since its shard was indexed."""
        shard, key, record = self._at(index)
        sample = Sample(
            key=key,
            caption=_caption(shard, key, record),
            image_embed=shard.embedding(key, "img_emb", record.row),
            text_embed=shard.embedding(key, "text_emb", record.row),
        )
        if self.image_size_px is not None:
            sample["image"] = shard.picture(key, record, self.image_size_px)
        return sample

    def caption(self, index: int) -> str:
        """A sample's caption alone. Raises CorruptFile."""
        return _caption(*self._at(index))

    def variants(self, index: int) -> tuple[str, ...]:
        """Other captions of a sample, as curate made them. `text_embed` belongs to the caption, not to these."""
        shard, key, record = self._at(index)
        if not record.json_bytes:
            return ()
        try:
            fields = parse_json(bytes(shard.read(key, "json", record.json, record.json_bytes)))
            written = fields.get("variants") if isinstance(fields, dict) else None
            variants = parse_json(written) if isinstance(written, str) and written else []
        except ValueError as error:
            raise CorruptFile(f"{shard.files.name}: {key}.json cannot be read ({error})") from error
        # That of an import is not sp-data's: its fields may mean something else.
        is_list = isinstance(variants, list) and all(isinstance(variant, str) for variant in variants)
        return tuple(variants) if is_list else ()

    def _open_all(self, verified: Manifest, lake: Lake, split: str) -> npt.NDArray[np.int64]:
        """Open every shard of the split; gives the number of samples up to the end of each."""
        tombstones = pa.array(sorted(verified.details["tombstones"]), pa.string())
        numbers, indices = self.layout.split_numbers(key_numbers(tombstones, self.layout.width))
        index_sizes = lake.sizes("index")
        counts = []
        for shard in verified.details["shards"]:
            if shard["split"] == split:
                first, last = np.searchsorted(numbers, [shard["number"], shard["number"] + 1])
                counts.append(self._add(shard, lake, int(verified.details["dim"]), indices[first:last], index_sizes))
        return np.cumsum(counts, dtype=np.int64)

    def _add(
        self, shard: dict[str, Any], lake: Lake, dim: int, dead_rows: npt.NDArray[np.int64], index_sizes: dict[str, int]
    ) -> int:
        tar, image, text = (self._local(lake, shard[name]["path"]) for name in ("tar", *EMBEDDING_KINDS))
        shape = (int(shard["num_rows"]), dim)
        index = index_path(shard, self.layout)
        path = self._stack.enter_context(lake.local(index)) if index in index_sizes else None
        verify = lake.command("verify", "--deep")
        records = read_index(path) if path else None
        if path is None or records is None:
            rows = [map_rows(embeddings, shape, verify) for embeddings in (image, text)]
            records = index_tar(tar, rows, shard, self.layout, verify)
            path = self._keep(to_npy(records), lake, index)
        alive = np.flatnonzero(~np.isin(records["row"], dead_rows)).astype(np.uint32) if len(dead_rows) else None
        files = ShardFiles(shard["number"], shard["tar"]["path"], tar, (image, text), shape, path, alive, verify)
        self._shards.append(files)
        # Open it now: a file that contradicts the others should be reported here, not in the middle of a training.
        self._shard(len(self._shards) - 1)
        return len(records) if alive is None else len(alive)

    def _local(self, lake: Lake, path: str) -> Path:
        if not lake.exists(path):
            raise StageNotDone(f"{lake.full(path)} is missing; {lake.command('run', '--until verify')} makes it again")
        return self._stack.enter_context(lake.local(path))

    def _keep(self, data: bytes, lake: Lake, path: str) -> Path:
        try:
            lake.write_bytes(path, data)
        except LakeError as error:
            log.warning("the index of a tar could not be stored and will be made again next time: %s", error)
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-data-index-")))
            (folder / "index.npy").write_bytes(data)
            return folder / "index.npy"
        return self._stack.enter_context(lake.local(path))

    def _at(self, index: int) -> tuple[OpenShard, str, IndexRecord]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shard(number)
        record = shard.record(index - (int(self._ends[number - 1]) if number else 0))
        return shard, self.layout.key(shard.files.number, record.row), record

    def _shard(self, number: int) -> OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        while len(self._open) >= self._max_open:
            self._open.popitem(last=False)[1].close()
        self._open[number] = OpenShard(self._shards[number])
        return self._open[number]


def _caption(shard: OpenShard, key: str, record: IndexRecord) -> str:
    try:
        return bytes(shard.read(key, "txt", record.txt, record.txt_bytes)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{shard.files.name}: {key}.txt is not UTF-8 ({error}); run {shard.files.verify}") from error


def max_open_shards() -> int:
    """How many shards may be open: a quarter of this process's file descriptors, to leave room for a second split."""
    max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if max_files == resource.RLIM_INFINITY:
        return MAX_OPEN_SHARDS
    return max(1, min(MAX_OPEN_SHARDS, max_files // 4 // FILES_A_SHARD))
