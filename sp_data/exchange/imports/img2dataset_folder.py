"""A webdataset folder that someone else made with img2dataset, and its embeddings, as they lie on disk.

    00007.tar  00007.parquet  00007_stats.json        keys begin with the shard's name: that proves the layout
    img_emb/img_emb_3.npy  text_emb/text_emb_3.npy  metadata/metadata_3.parquet      clip-retrieval's; any partitions

Nothing here writes to a lake, and nothing is believed: a shard is whole when img2dataset left its _stats.json, and when
the tar and the parquet name the same pictures.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sp_data.dataset.curate.tables import SPLITS
from sp_data.dataset.reorder.partitions import key_numbers
from sp_data.dataset.shards.tars import EXTENSIONS, SUCCESS, tar_keys, tidy_parquet
from sp_data.errors import CorruptFile, LayoutError, StageNotDone
from sp_data.keys import KeyLayout
from sp_data.parquet import read_table
from sp_data.recipe import Curate

NEEDED = ("key", "status", "error_message", "url")


@dataclass(frozen=True, slots=True)
class ForeignShard:
    number: int
    name: str
    tar: Path
    parquet: Path
    stats: Path
    own_split: str | None
    """The split its rows agree on, as sp-data's own shards do; None for others."""


def find_shards(folder: Path, asked: KeyLayout | None) -> tuple[list[ForeignShard], KeyLayout]:
    """The shards of a folder by number, and the layout of their keys.

    Raises StageNotDone if there are none, CorruptFile for one that img2dataset did not finish, LayoutError for keys
    that do not begin with their shard's name or are not of the layout that was asked for.
    """
    shards = []
    layout: KeyLayout | None = None
    for tar in sorted(folder.glob("*.tar")):
        name = tar.stem
        parquet, stats = tar.with_suffix(".parquet"), tar.with_name(f"{name}_stats.json")
        if missing := next((path for path in (parquet, stats) if not path.exists()), None):
            raise CorruptFile(
                f"{tar} has no {missing.name} beside it: img2dataset did not finish it; remove it or make it again"
            )
        table = read_table(parquet, str(parquet))
        if lacking := sorted({*NEEDED} - {*table.schema.names}):
            raise CorruptFile(f"{parquet} has no column {lacking[0]!r}: expected img2dataset's own parquet")
        found = _layout_of(name, table["key"].to_pylist(), parquet, asked)
        if layout is not None and layout != found:
            raise LayoutError(f"{parquet} has keys of layout {found}, the shards before it {layout}: import them apart")
        layout = found
        shards.append(ForeignShard(int(name), name, tar, parquet, stats, _own_split(table)))
    if layout is None:
        raise StageNotDone(f"{folder} holds no NNNNN.tar: expected the output folder of img2dataset")
    return shards, layout


def _layout_of(name: str, keys: list[str], parquet: Path, asked: KeyLayout | None) -> KeyLayout:
    layout = KeyLayout(len(name), max((len(key) for key in keys), default=len(name)) - len(name))
    if asked is not None and asked != layout:
        raise LayoutError(f"--layout {asked}: {parquet} has keys of layout {layout} ({keys[0]!r} in shard {name!r})")
    if odd := next((key for key in keys if len(key) != layout.width or not key.startswith(name)), None):
        raise LayoutError(
            f"{parquet} has key {odd!r}: expected {layout.width} digits that begin with the shard's name {name!r}"
        )
    return layout


def _own_split(table: pa.Table) -> str | None:
    said = set(table["split"].to_pylist()) if "split" in table.schema.names else set()
    return said.pop() if len(said) == 1 and said <= set(SPLITS) else None


def splits_of(shards: list[ForeignShard], settings: Curate) -> dict[int, str]:
    """Shard -> split: its own if it has one, else by the hash of its name.

    Pages are not known, so a whole shard is what stays together. As many are held out as the shares say, of three
    shards at least one for each of val and test, where the share is not 0.
    """
    found = {shard.number: shard.own_split for shard in shards if shard.own_split}
    others = [shard for shard in shards if not shard.own_split]
    others.sort(key=lambda shard: hashlib.sha256(shard.name.encode()).digest())
    shares = {"val": settings.val_share, "test": settings.test_share}
    for split, share in shares.items():
        least = 1 if share and len(shards) >= len(SPLITS) else 0
        for _ in range(min(max(least, round(share * len(shards))), max(len(others) - 1, 0))):
            found[others.pop().number] = split
    return found | {shard.number: "train" for shard in others}


def read_shard(shard: ForeignShard, layout: KeyLayout) -> pa.Table:
    """img2dataset's parquet in key order, a row for every index up to the highest.

    Raises CorruptFile if the tar does not hold exactly the pictures that it calls successful, each with its parts.
    """
    raw = read_table(shard.parquet, str(shard.parquet))
    url_of = dict(zip(raw["key"].to_pylist(), raw["url"].to_pylist(), strict=True))
    if len(url_of) != raw.num_rows:
        raise CorruptFile(f"{shard.parquet} names a key twice: {raw.num_rows} rows, {len(url_of)} keys")
    num_rows = max((layout.split(key)[1] + 1 for key in url_of), default=0)
    urls = [url_of.get(layout.key(shard.number, index), "") for index in range(num_rows)]
    table = tidy_parquet(shard.parquet, urls, layout, shard.number)
    succeeded = set(table.filter(pc.equal(table["status"], SUCCESS))["key"].to_pylist())
    in_tar = tar_keys(shard.tar)
    if odd := sorted(succeeded ^ in_tar.keys()):
        raise CorruptFile(f"{shard.tar}: sample {odd[0]} is in the tar or in the parquet beside it, but not in both")
    for key, extensions in in_tar.items():
        if missing := sorted(set(EXTENSIONS) - extensions):
            raise CorruptFile(
                f"{shard.tar}: sample {key} has no .{missing[0]}; expected img2dataset's .jpg, .txt and .json"
            )
    return table


def with_columns(table: pa.Table, added: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    """The table with these columns, typed as in `schema`, in place of those of the same name."""
    for name, values in added.items():
        column = pa.array(values, schema.field(name).type)
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    return table


class EmbeddedCaptions:
    """What was embedded with each key, sorted into a file a shard and partition: a partition names keys of any shard,
    and not all of them fit into memory."""

    def __init__(self, metadata: Path, layout: KeyLayout, work: Path) -> None:
        """Raises CorruptFile for metadata that is cut or has no caption, LayoutError for a key of another layout."""
        work.mkdir()
        self._pieces: defaultdict[int, list[Path]] = defaultdict(list)
        for path in sorted(metadata.glob("metadata_*.parquet")):
            table = read_table(path, str(path), ["image_path", "caption"]).sort_by("image_path")
            keys = table["image_path"].combine_chunks()
            numbers, _ = layout.split_numbers(key_numbers(keys, layout.width))
            for number, start, stop in _runs(numbers.tolist()):
                piece = work / f"{number}-{len(self._pieces[number])}.parquet"
                pq.write_table(table.slice(start, stop - start), piece)
                self._pieces[number].append(piece)

    def of_shard(self, number: int) -> dict[str, str]:
        """Key -> caption."""
        found: dict[str, str] = {}
        for piece in self._pieces.get(number, []):
            table = pq.read_table(piece)
            found |= zip(table["image_path"].to_pylist(), table["caption"].to_pylist(), strict=True)
        return found

    def shards(self) -> set[int]:
        return set(self._pieces)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each run of equal ones."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[start]:
            yield numbers[start], start, place
            start = place
