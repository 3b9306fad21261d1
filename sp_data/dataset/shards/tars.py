"""What is in a shard's tar, and how img2dataset's is rewritten so that equal inputs give equal bytes.

    000070042.jpg     the picture, RGB, of the recipe's size
    000070042.json    its row: url, sha1, title, page, licence, split, variants of the caption, ...
    000070042.txt     its caption
    000070043.jpg     ...

img2dataset writes samples in the order in which they finished, with the time of day in the tar and the path on this
machine as the url. It is rewritten once: sorted by key, times zero, the wiki's address as the url.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.canonical import parse_json
from sp_data.dataset.shards.members import tar_members
from sp_data.errors import CorruptFile
from sp_data.keys import KeyLayout

SUCCESS = "success"
LOST = "lost"
"""Status of an input row for which img2dataset wrote nothing at all."""
EXTENSIONS = ("jpg", "json", "txt")
CURE = "delete it and run the shard stage again"
TarSample = tuple[str, dict[str, bytes]]
"""Key, and extension -> bytes."""


def read_tar(path: Path) -> Iterator[TarSample]:
    """(key, extension -> bytes) of each sample, in the tar's order. Raises CorruptFile for a cut or foreign tar."""
    with path.open("rb") as tar:
        for key, members in itertools.groupby(
            tar_members(path, cure=CURE), lambda member: member.name.partition(".")[0]
        ):
            parts: dict[str, bytes] = {}
            for member in members:
                tar.seek(member.offset)
                parts[member.name.partition(".")[2]] = tar.read(member.size)
            yield key, parts


def tar_keys(path: Path) -> dict[str, set[str]]:
    """Key -> extensions, reading the headers only. Raises CorruptFile."""
    extensions: dict[str, set[str]] = {}
    for member in tar_members(path, cure=CURE):
        stem, _, extension = member.name.partition(".")
        extensions.setdefault(stem, set()).add(extension)
    return extensions


def write_tar(samples: Iterable[TarSample], path: Path, extensions: tuple[str, ...] = EXTENSIONS) -> None:
    write_members(
        ((f"{key}.{extension}", parts[extension]) for key, parts in samples for extension in extensions), path
    )


def write_members(members: Iterable[tuple[str, bytes]], path: Path) -> None:
    """Write (name, bytes) as a plain tar; equal members give equal bytes."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def tidy_parquet(raw: Path, urls: list[str], layout: KeyLayout, shard: int) -> pa.Table:
    """img2dataset's parquet with one row per input row, in key order, and the wiki's addresses in `url`.

    `urls[i]` is the address of the sample with index i.
    """
    return tidy_table(pq.read_table(raw), str(raw), urls, layout, shard)


def tidy_table(table: pa.Table, shown: str, urls: list[str], layout: KeyLayout, shard: int) -> pa.Table:
    """The same for a table that is read already; `shown` is its file's name in errors."""
    row_of = {key: row for row, key in enumerate(table["key"].to_pylist())}
    keys = [layout.key(shard, index) for index in range(len(urls))]
    if foreign := sorted(row_of.keys() - set(keys)):
        raise CorruptFile(f"{shown}: key {foreign[0]} is not of shard {layout.shard_name(shard)} with layout {layout}")
    rows = pa.array([row_of.get(key) for key in keys], pa.int64())
    table = table.take(rows)
    lost = pa.array([key not in row_of for key in keys])
    table = _with(table, "key", pa.array(keys, pa.string()))
    table = _with(table, "url", pa.array(urls, pa.string()))
    statuses = [
        LOST if is_lost else status
        for is_lost, status in zip(lost.to_pylist(), table["status"].to_pylist(), strict=True)
    ]
    return _with(table, "status", pa.array(statuses, pa.string()))


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def tidy_samples(raw: Path, table: pa.Table) -> list[TarSample]:
    """img2dataset's samples in key order, `url` in their .json as in `table`.

    Raises CorruptFile if the tar and the parquet beside it do not name the same samples.
    """
    url_of = {
        row["key"]: row["url"] for row in table.select(["key", "url", "status"]).to_pylist() if row["status"] == SUCCESS
    }
    samples = dict(read_tar(raw))
    if samples.keys() != url_of.keys():
        unmatched = sorted(samples.keys() ^ url_of.keys())[0]
        raise CorruptFile(f"{raw}: sample {unmatched} is in the tar or in the parquet beside it, but not in both")
    return [(key, {**samples[key], "json": _json(samples[key]["json"], url_of[key])}) for key in sorted(samples)]


def _json(data: bytes, url: str) -> bytes:
    record = parse_json(data)
    return json.dumps({**record, "url": url}, ensure_ascii=False, sort_keys=True, indent=1).encode("utf-8")
