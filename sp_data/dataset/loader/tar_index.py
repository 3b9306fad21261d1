"""Where each sample lies in its shard's tar: found once a shard, then kept in the lake as a small array.

    index/00007-3f2a91bc5d60.npy      one record a sample, in key order: its row, offset and size of each of its files
                                      row 42 | jpg 131584, 20113 | txt 152576, 31 | json 153600, 702

Walking through a tar costs 4 µs a header: twenty minutes for 100 million samples, and the disk's seeks. So it is done
once. The name carries the digests of the files it was derived from; removing `index/` loses only time.
"""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.canonical import digest_of
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.errors import CorruptFile, DuplicateKey, KeyOutsideShard, LayoutError
from sp_data.keys import KeyLayout

VERSION = 1
HEADER_BYTES = 512
FILES = ("jpg", "txt", "json")
PLACE = np.dtype(
    [("row", "<u4")] + [(f"{name}{what}", kind) for name in FILES for what, kind in (("", "<u8"), ("_bytes", "<u4"))]
)
"""Row of the shard's embeddings; `jpg`, `txt`, `json`: where the file's bytes begin in the tar, `_bytes`: how many."""


def index_path(listed: dict[str, Any], layout: KeyLayout) -> str:
    """Path in the lake of a shard's places. `listed` is the shard in the dataset manifest."""
    made_of = [VERSION, str(layout), *(listed[name]["sha256"] for name in ("tar", *EMBEDDING_KINDS))]
    return f"index/{layout.shard_name(listed['number'])}-{digest_of(made_of)[:12]}.npy"


def find_places(
    tar: Path, rows: list[npt.NDArray[Any]], listed: dict[str, Any], layout: KeyLayout
) -> npt.NDArray[np.void]:
    """The samples of a shard, `(n,)` PLACE in key order: those with a picture, a caption and embeddings.

    `rows` are the shard's image and text embeddings, each `(num_rows, dim)`: what could not be embedded is zero there,
    and there is nothing to learn from it.

    Raises CorruptFile if the tar is cut or holds another number of samples than the manifest says, KeyOutsideShard for
    a key of another shard, DuplicateKey for a file that comes twice.
    """
    name = listed["tar"]["path"]
    found: dict[int, dict[str, tuple[int, int]]] = {}
    for member, offset, size in _members(tar, name):
        key, _, extension = member.partition(".")
        try:
            number, row = layout.split(key)
        except LayoutError as error:
            raise KeyOutsideShard(f"{name}: {error}; run `sp-data verify`") from error
        if number != listed["number"] or row >= listed["num_rows"]:
            raise KeyOutsideShard(f"{name}: key {key} is of another shard; run `sp-data verify`")
        files = found.setdefault(row, {})
        if extension in files:
            raise DuplicateKey(f"{name}: {member} comes twice; run `sp-data verify --deep`")
        files[extension] = (offset, size)
    if len(found) != listed["num_samples"]:
        raise CorruptFile(
            f"{name} holds {len(found):,} samples, the dataset manifest says {listed['num_samples']:,}; "
            "run `sp-data verify --deep`"
        )
    embedded = np.logical_and.reduce([array.any(axis=1) for array in rows])
    whole = [row for row in sorted(found) if embedded[row] and {"jpg", "txt"} <= found[row].keys()]
    places = np.zeros(len(whole), PLACE)
    places["row"] = whole
    for extension in FILES:
        where = [found[row].get(extension, (0, 0)) for row in whole]
        places[extension], places[f"{extension}_bytes"] = np.array(where, np.int64).reshape(-1, 2).T
    return places


def _members(tar: Path, name: str) -> list[tuple[str, int, int]]:
    """(name, offset of its bytes, size) of each file in a tar, in its order."""
    # webdataset's reader of headers: a fifth of the time of Python's tarfile.
    from wids.wids_mmtar import MMIndexedTar

    try:
        # It prints a header that it cannot read; standard output may belong to --json.
        with contextlib.redirect_stdout(io.StringIO()):
            opened = MMIndexedTar(str(tar))
    except (ValueError, struct.error) as error:
        raise CorruptFile(f"{name} is no tar ({error}); run `sp-data verify --deep`") from error
    members = [(member, offset + HEADER_BYTES, size) for member, offset, size in opened.by_index]
    opened.close()
    # That reader does not mind a tar that ends early.
    ends = max((offset + size for _, offset, size in members), default=0)
    if ends > tar.stat().st_size:
        raise CorruptFile(f"{name} is cut: it ends inside {members[-1][0]}; run `sp-data verify --deep`")
    return members


def to_npy(places: npt.NDArray[np.void]) -> bytes:
    """The places as a file."""
    stream = io.BytesIO()
    np.save(stream, places)
    return stream.getvalue()


def read_places(path: Path) -> npt.NDArray[np.void] | None:
    """The places that were kept, mapped; None if the file is none: it only saves work."""
    try:
        mapped = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):
        return None
    return np.asarray(mapped) if mapped.dtype == PLACE and mapped.ndim == 1 else None
