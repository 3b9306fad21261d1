"""Find which digits of someone else's keys name the shard, how many rows each shard has, and what proves it.

img2dataset's folder proves both: the keys of 00007.parquet begin with 00007, and every download has a row there.
clip-retrieval's metadata names only the pictures that were embedded, so the layout is inferred from img2dataset's
habits (five digits for the shard, shards without gaps, no idle digit in the index), or refused.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sp_data.dataset.reorder.partitions import key_numbers, numbered_files
from sp_data.dataset.reorder.plan import read_numbers
from sp_data.dataset.shards.tars import tar_keys
from sp_data.errors import CorruptFile, LayoutError, StageNotDone
from sp_data.keys import KeyLayout, infer_layout, reading_of
from sp_data.parquet import column_blocks


@dataclass(frozen=True, slots=True)
class FoundLayout:
    """A layout, and what it was found from (`source`)."""

    layout: KeyLayout
    source: str
    num_keys: int
    num_rows: dict[int, int]
    """Shard -> number of its rows, failed downloads included; from metadata alone, the highest index anywhere + 1."""
    exact: bool
    """Whether `num_rows` is known rather than inferred from the highest index."""

    def __str__(self) -> str:
        sizes = sorted(set(self.num_rows.values()))
        rows = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        last = self.layout.shard_name(max(self.num_rows))
        caveat = "" if self.exact else " (as far as the highest index tells)"
        return (
            f"{self.layout}: {len(self.num_rows):,} shards up to {last} of {rows} rows{caveat}, "
            f"{self.num_keys:,} keys; {self.source}"
        )


def layout_of(folder: Path) -> FoundLayout:
    """The layout of the keys in a folder: img2dataset's output, or clip-retrieval's (or its metadata/).

    Raises StageNotDone if it is neither, LayoutError (with every possible layout) if the keys do not prove one,
    CorruptFile.
    """
    if any(folder.glob("[0-9]*.parquet")) or any(folder.glob("[0-9]*.tar")):
        return layout_of_shards(folder)
    metadata = folder / "metadata" if (folder / "metadata").is_dir() else folder
    files = list(numbered_files(metadata, "metadata", "parquet").values())
    if not files:
        raise StageNotDone(
            f"{folder} holds neither img2dataset's NNNNN.parquet or NNNNN.tar nor clip-retrieval's metadata_N.parquet"
        )
    with tempfile.TemporaryDirectory(prefix="sp-data-") as scratch:
        numbers, width = read_numbers(files, Path(scratch))
        return layout_of_keys(numbers, width, f"inferred from {len(files)} metadata files in {metadata}")


def layout_of_keys(
    numbers: npt.NDArray[np.int64], width: int, source: str, layout: KeyLayout | None = None
) -> FoundLayout:
    """The layout of keys alone, `(n,)` int64, numbers of `width` digits; if `layout` is given, only the shards' sizes.

    Raises LayoutError.
    """
    layout = layout or infer_layout(numbers, width)
    if layout.width != width:
        raise LayoutError(f"layout {layout} asks for keys of {layout.width} digits, these have {width}")
    reading = reading_of(numbers, layout)
    sizes = dict.fromkeys(range(reading.last_shard + 1), reading.last_index + 1)
    return FoundLayout(layout, source, len(numbers), sizes, exact=False)


def layout_of_shards(folder: Path) -> FoundLayout:
    """The layout of img2dataset's output: every key must begin with the name of its file.

    Raises StageNotDone if the folder holds no shard, LayoutError for a key of another shard or width, CorruptFile.
    """
    stems = sorted({path.stem for kind in ("parquet", "tar") for path in folder.glob(f"[0-9]*.{kind}")})
    if not stems:
        raise StageNotDone(f"{folder} holds no NNNNN.parquet or NNNNN.tar: expected img2dataset's output")
    layout: KeyLayout | None = None
    num_rows: dict[int, int] = {}
    num_keys, exact = 0, True
    for stem in stems:
        if not stem.isdecimal() or len(stem) != len(stems[0]):
            raise LayoutError(
                f"{folder}: shards {stems[0]} and {stem} are not named alike; remove the files "
                "that are not img2dataset's"
            )
        parquet = folder / f"{stem}.parquet"
        path = parquet if parquet.exists() else folder / f"{stem}.tar"
        keys = _keys_in(path)
        if not len(keys):
            num_rows[int(stem)] = 0
            continue
        layout = layout or _layout_of_key(keys[0].as_py(), stem, path)
        shards, indices = layout.split_numbers(key_numbers(keys, layout.width))
        if (wrong := np.flatnonzero(shards != int(stem))).size:
            raise LayoutError(
                f"{path} holds key {keys[int(wrong[0])].as_py()}, which does not begin with {stem}: it is of "
                "another run"
            )
        # Only the parquet has rows of failed downloads; a tar does not show gaps at the end.
        num_rows[int(stem)] = int(indices.max()) + 1
        num_keys += len(keys)
        exact = exact and path == parquet
    if layout is None:
        raise LayoutError(f"{folder}: none of its {len(stems):,} shards holds a key, so their layout is not known")
    kind_of_files = "parquet files" if exact else "tars"
    return FoundLayout(layout, f"proved by {len(stems):,} {kind_of_files} in {folder}", num_keys, num_rows, exact)


def _keys_in(path: Path) -> pa.StringArray:
    if path.suffix == ".tar":
        return pa.array(sorted(tar_keys(path)), pa.string())
    blocks = [pc.cast(block, pa.string()) for block in column_blocks(path, str(path), "key")]
    keys = pa.concat_arrays(blocks) if blocks else pa.array([], pa.string())
    if keys.null_count:
        raise CorruptFile(f"{path} has a row without a key; run img2dataset on this shard again")
    return keys


def _layout_of_key(key: str, stem: str, path: Path) -> KeyLayout:
    if not key.startswith(stem):
        raise LayoutError(f"{path} holds key {key}, which does not begin with {stem}: it is of another run")
    return KeyLayout(len(stem), len(key) - len(stem))
