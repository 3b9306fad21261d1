"""Read a webdataset folder that someone else made with img2dataset, and its embeddings.

    00007.tar  00007.parquet  00007_stats.json        keys begin with the shard's name, which proves the layout
    img_emb/img_emb_3.npy  text_emb/text_emb_3.npy  metadata/metadata_3.parquet      clip-retrieval's; any partitions

Nothing here writes to a lake, and every shard is checked: it is whole if it has its _stats.json and if the tar and the
parquet have the same pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sp_data.canonical import parse_json
from sp_data.dataset.curate.splits import SPLITS
from sp_data.dataset.reorder.partitions import as_keys, key_numbers
from sp_data.dataset.shards.tars import EXTENSIONS, SUCCESS, tar_keys, tidy_table
from sp_data.errors import CorruptFile, LayoutError, StageNotDone
from sp_data.exchange.imports.foreign_table import read_foreign, rows_of_tar
from sp_data.exchange.imports.foreign_tar import is_plain, write_plain
from sp_data.keys import KeyLayout
from sp_data.parquet import read_table
from sp_data.recipe import Curate

MAX_KEY_WIDTH = 18
FEW_ROWS, GAPS = 100_000, 10
"""A shard may have so many rows without a picture: up to this index, or this many times as many as there are."""


@dataclass(frozen=True, slots=True)
class ForeignShard:
    number: int
    name: str
    tar: Path
    """As it was given, or written anew under plain names."""
    parquet: Path
    """img2dataset's, or the rows of a tar without one."""
    stats: Path
    own_split: str | None
    """The split of all its rows, if they are of one split, as in sp-data's own shards; else None."""
    source: Path
    """The tar that was given, for errors."""


def find_shards(folder: Path, expected: KeyLayout | None, scratch: Path) -> tuple[list[ForeignShard], KeyLayout]:
    """The shards of a folder, ordered by name, and the layout of their keys. What has to be written anew (a tar with
    odd names, the rows of a folder of tars alone) is written to `scratch`.

    Raises StageNotDone if there are none, CorruptFile for a shard that img2dataset did not finish or that holds what a
    dataset cannot, LayoutError for keys that do not begin with their shard's name or are not of the `expected` layout.
    """
    tars = [path for path in sorted(folder.glob("*.tar")) if not path.name.startswith("._")]
    has_parquets = any(folder.glob("*.parquet"))
    shards = []
    layout: KeyLayout | None = None
    for tar in tars:
        name = tar.stem
        if not (name.isascii() and name.isdecimal()) or len(name) != len(tars[0].stem):
            raise LayoutError(
                f"{tar}: expected shards named by as many digits each, such as 00007.tar, with keys that begin with "
                "them; rename it, or import its folder apart"
            )
        shard = _given(tar, folder) if has_parquets else _of_tar_alone(tar, folder, scratch)
        table = read_foreign(shard.parquet)
        shard_layout = _layout_of(name, table["key"].to_pylist(), shard.parquet, expected)
        if layout is not None and layout != shard_layout:
            raise LayoutError(
                f"{shard.parquet} has keys of layout {shard_layout}, the shards before it {layout}: import them apart"
            )
        layout = shard_layout
        if has_parquets and not is_plain(tar):
            write_plain(tar, scratch / tar.name)
            shard = replace(shard, tar=scratch / tar.name)
        shards.append(replace(shard, own_split=_own_split(table)))
    if layout is None:
        packed = next(iter(sorted([*folder.glob("*.tar.*"), *folder.glob("*.tgz")])), None)
        hint = f" ({packed.name} is compressed: decompress it)" if packed else ""
        raise StageNotDone(f"{folder} holds no NNNNN.tar{hint}: expected the output folder of img2dataset")
    return shards, layout


def _given(tar: Path, folder: Path) -> ForeignShard:
    parquet, stats = tar.with_suffix(".parquet"), tar.with_name(f"{tar.stem}_stats.json")
    if missing := next((path for path in (parquet, stats) if not path.exists()), None):
        raise CorruptFile(
            f"{tar} has no {missing.name} beside it: img2dataset did not finish it; remove it or make it again"
        )
    for path in (tar, parquet, stats):
        _check_file(path, folder)
    try:
        is_object = isinstance(parse_json(stats.read_bytes()), dict)
    except ValueError:
        is_object = False
    if not is_object:
        raise CorruptFile(f"{stats} is not img2dataset's JSON; make the shard again")
    return ForeignShard(int(tar.stem), tar.stem, tar, parquet, stats, None, tar)


def _of_tar_alone(tar: Path, folder: Path, scratch: Path) -> ForeignShard:
    """A shard of a folder that has no parquet at all: its rows are what the tar holds."""
    _check_file(tar, folder)
    plain = tar
    if not is_plain(tar):
        plain = scratch / tar.name
        write_plain(tar, plain)
    parquet, stats = scratch / f"{tar.stem}.parquet", scratch / f"{tar.stem}_stats.json"
    table = rows_of_tar(plain)
    if not table.num_rows:
        raise CorruptFile(f"{tar} holds no sample; remove it")
    pq.write_table(table, parquet)
    stats.write_text(json.dumps({"count": table.num_rows, "successes": table.num_rows}) + "\n")
    return ForeignShard(int(tar.stem), tar.stem, plain, parquet, stats, None, tar)


def _check_file(path: Path, folder: Path) -> None:
    """Raises CorruptFile for what is no file, and for a link that leads out of the folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorruptFile(
            f"{path} is a link to {path.resolve()}, outside the folder that was given; copy the folder with the files "
            "themselves (cp -rL)"
        )
    if not path.is_file():
        raise CorruptFile(f"{path} is not a file; remove it, or make the shard again")


def _layout_of(name: str, keys: list[str], parquet: Path, expected: KeyLayout | None) -> KeyLayout:
    longest = max((len(key) for key in keys), default=len(name))
    if longest > MAX_KEY_WIDTH:
        key = next(key for key in keys if len(key) == longest)
        raise LayoutError(f"{parquet} has key {key[:40]!r}: expected at most {MAX_KEY_WIDTH} digits")
    layout = KeyLayout(len(name), max(longest - len(name), 0))
    if wrong_key := next((key for key in keys if not _is_key(key, name, layout)), None):
        raise LayoutError(
            f"{parquet} has key {wrong_key!r}: expected {layout.width} digits that begin with the shard's name {name!r}"
        )
    if expected is not None and expected != layout:
        raise LayoutError(f"--layout {expected}: {parquet} has keys of layout {layout} ({keys[0]!r} in shard {name!r})")
    last = max((layout.split(key)[1] for key in keys), default=0)
    if last >= max(FEW_ROWS, GAPS * len(keys)):
        raise LayoutError(
            f"{parquet} has the index {last:,} and only {len(keys):,} rows: expected a row for every index, as "
            f"img2dataset writes; its layout may not be {layout}"
        )
    return layout


def _is_key(key: str, name: str, layout: KeyLayout) -> bool:
    return len(key) == layout.width and key.startswith(name) and key.isascii() and key.isdecimal()


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
    raw = read_foreign(shard.parquet)
    url_of = {key: url or "" for key, url in zip(raw["key"].to_pylist(), raw["url"].to_pylist(), strict=True)}
    if len(url_of) != raw.num_rows:
        raise CorruptFile(f"{shard.parquet} names a key twice: {raw.num_rows} rows, {len(url_of)} keys")
    num_rows = max((layout.split(key)[1] + 1 for key in url_of), default=0)
    urls = [url_of.get(layout.key(shard.number, index), "") for index in range(num_rows)]
    table = tidy_table(raw, str(shard.parquet), urls, layout, shard.number)
    succeeded = set(table.filter(pc.equal(table["status"], SUCCESS))["key"].to_pylist())
    in_tar = tar_keys(shard.tar)
    if unmatched := sorted(succeeded ^ in_tar.keys()):
        raise CorruptFile(
            f"{shard.source}: sample {unmatched[0]} is in the tar or in the parquet beside it, but not in both"
        )
    for key, extensions in in_tar.items():
        if missing := sorted(set(EXTENSIONS) - extensions):
            raise CorruptFile(
                f"{shard.source}: sample {key} has no .{missing[0]}; expected img2dataset's .jpg, .txt and .json"
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
            table = _with_text(read_table(path, str(path), ["image_path", "caption"]), path).sort_by("image_path")
            keys = table["image_path"].combine_chunks()
            numbers, _ = layout.split_numbers(key_numbers(keys, layout.width, str(path)))
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


def _with_text(table: pa.Table, path: Path) -> pa.Table:
    """The metadata with keys and captions as plain text. Raises CorruptFile."""
    kind = table["caption"].type.value_type if pa.types.is_dictionary(table["caption"].type) else table["caption"].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise CorruptFile(f"{path} has the column 'caption' as {kind}: expected text; embed it again")
    return pa.table(
        {
            "image_path": as_keys(table["image_path"].combine_chunks(), path),
            "caption": table["caption"].cast(pa.string()),
        }
    )


def _runs(numbers: list[int]) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each run of equal numbers."""
    start = 0
    for position in range(1, len(numbers) + 1):
        if position == len(numbers) or numbers[position] != numbers[start]:
            yield numbers[start], start, position
            start = position
