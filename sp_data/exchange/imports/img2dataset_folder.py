"""Read a webdataset folder that someone else made with img2dataset, and its embeddings.

    00007.tar  00007.parquet  00007_stats.json        keys begin with the shard's name, which proves the layout
    img_emb/img_emb_3.npy  text_emb/text_emb_3.npy  metadata/metadata_3.parquet      clip-retrieval's; any partitions

Nothing here writes to a lake, and every shard is checked: it is whole if it has its _stats.json and if the tar and the
parquet have the same pictures.
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

from sp_data.dataset.curate.splits import SPLITS
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
    """The split of all its rows, if they are of one split, as in sp-data's own shards; else None."""


def find_shards(folder: Path, expected: KeyLayout | None) -> tuple[list[ForeignShard], KeyLayout]:
    """The shards of a folder, ordered by name, and the layout of their keys.

    Raises StageNotDone if there are none, CorruptFile for a shard that img2dataset did not finish, LayoutError for keys
    that do not begin with their shard's name or are not of the `expected` layout.
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
        shard_layout = _layout_of(name, table["key"].to_pylist(), parquet, expected)
        if layout is not None and layout != shard_layout:
            raise LayoutError(
                f"{parquet} has keys of layout {shard_layout}, the shards before it {layout}: import them apart"
            )
        layout = shard_layout
        shards.append(ForeignShard(int(name), name, tar, parquet, stats, _own_split(table)))
    if layout is None:
        raise StageNotDone(f"{folder} holds no NNNNN.tar: expected the output folder of img2dataset")
    return shards, layout


def _layout_of(name: str, keys: list[str], parquet: Path, expected: KeyLayout | None) -> KeyLayout:
    layout = KeyLayout(len(name), max((len(key) for key in keys), default=len(name)) - len(name))
    if expected is not None and expected != layout:
        raise LayoutError(f"--layout {expected}: {parquet} has keys of layout {layout} ({keys[0]!r} in shard {name!r})")
    if wrong_key := next((key for key in keys if len(key) != layout.width or not key.startswith(name)), None):
        raise LayoutError(
            f"{parquet} has key {wrong_key!r}: expected {layout.width} digits that begin with the shard's name {name!r}"
        )
    return layout


def _own_split(table: pa.Table) -> str | None:
    splits = set(table["split"].to_pylist()) if "split" in table.schema.names else set()
    return splits.pop() if len(splits) == 1 and splits <= set(SPLITS) else None


def splits_of(shards: list[ForeignShard], settings: Curate) -> dict[int, str]:
    """Shard -> split: its own if it has one, else chosen by the hash of its name.

    Pages are not known, so the pictures of a shard stay together. As many shards are held out as the shares say; if
    there are three or more, at least one for val and one for test, unless the share is 0.
    """
    split_of = {shard.number: shard.own_split for shard in shards if shard.own_split}
    others = [shard for shard in shards if not shard.own_split]
    others.sort(key=lambda shard: hashlib.sha256(shard.name.encode()).digest())
    shares = {"val": settings.val_share, "test": settings.test_share}
    for split, share in shares.items():
        least = 1 if share and len(shards) >= len(SPLITS) else 0
        for _ in range(min(max(least, round(share * len(shards))), max(len(others) - 1, 0))):
            split_of[others.pop().number] = split
    return split_of | {shard.number: "train" for shard in others}


def read_shard(shard: ForeignShard, layout: KeyLayout) -> pa.Table:
    """img2dataset's parquet in key order, with a row for every index up to the highest.

    Raises CorruptFile if the tar does not hold exactly the pictures that have status success, each with its parts.
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
    if unmatched := sorted(succeeded ^ in_tar.keys()):
        raise CorruptFile(
            f"{shard.tar}: sample {unmatched[0]} is in the tar or in the parquet beside it, but not in both"
        )
    for key, extensions in in_tar.items():
        if missing := sorted(set(EXTENSIONS) - extensions):
            raise CorruptFile(
                f"{shard.tar}: sample {key} has no .{missing[0]}; expected img2dataset's .jpg, .txt and .json"
            )
    return table


def with_columns(table: pa.Table, added: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    """The table with these columns, typed as in `schema`; they replace those of the same name."""
    for name, values in added.items():
        column = pa.array(values, schema.field(name).type)
        position = table.schema.get_field_index(name)
        table = table.append_column(name, column) if position < 0 else table.set_column(position, name, column)
    return table


class EmbeddedCaptions:
    """The caption that was embedded for each key, sorted into one file for each shard and partition.

    A partition has keys of any shard, and not all partitions fit into memory.
    """

    def __init__(self, metadata: Path, layout: KeyLayout, work: Path) -> None:
        """Raises CorruptFile for metadata that is cut or has no captions, LayoutError for a key of another layout."""
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
        captions: dict[str, str] = {}
        for piece in self._pieces.get(number, []):
            table = pq.read_table(piece)
            captions |= zip(table["image_path"].to_pylist(), table["caption"].to_pylist(), strict=True)
        return captions

    def shards(self) -> set[int]:
        return set(self._pieces)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each run of equal numbers."""
    start = 0
    for position in range(1, len(numbers) + 1):
        if position == len(numbers) or numbers[position] != numbers[start]:
            yield numbers[start], start, position
            start = position
