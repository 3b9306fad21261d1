"""Put CLIP embeddings in the order their pictures have inside the shards.

clip-retrieval writes row r of img_emb_0.npy for whichever picture came r-th; the decoder reads row 42 of
img_emb_00007.npy for the picture 000070042. Where a picture failed the row is zero: the loader relies on it.

    reordered/<clip>/img_emb/img_emb_00007.npy     (rows of the shard, dim), dtype of the embeddings
    reordered/<clip>/text_emb/text_emb_00007.npy

Out of core: embeddings are memory-mapped, and one shard at a time (a thread) is in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.partitions import KINDS, KeyTable, Partition, find_partitions, key_table
from sp_data.errors import CorruptFile, DuplicateKey, KeyOutsideShard, StageError
from sp_data.keys import KeyLayout, infer_layout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, Part
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Reorder
from sp_data.stage import VERSION_OF, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "reorder"
VERSION = VERSION_OF[STAGE]


@dataclass(frozen=True, slots=True)
class Target:
    """One file to make: a shard's rows of one kind."""

    shard: int
    kind: str
    num_rows: int
    where: KeyTable
    partitions: list[Partition]


def gather(target: Target, layout: KeyLayout, dim: int, dtype: npt.DTypeLike) -> npt.NDArray[np.floating[Any]]:
    """The rows of one shard, `(num_rows, dim)` in `dtype`, each where its index says, zeros where nothing is.

    Raises DuplicateKey if an index comes twice, KeyOutsideShard if one lies beyond `num_rows`, CorruptFile for a
    partition of another width or dtype, or a row with NaN.
    """
    where = target.where
    if (twice := np.flatnonzero(where.index[1:] == where.index[:-1])).size:
        first, second = int(twice[0]), int(twice[0]) + 1
        raise DuplicateKey(
            f"key {layout.key(target.shard, int(where.index[first]))} comes twice: {_place(target, first)} and "
            f"{_place(target, second)}; embed into a fresh folder"
        )
    if where.index.size and where.index[-1] >= target.num_rows:
        raise KeyOutsideShard(
            f"key {layout.key(target.shard, int(where.index[-1]))} ({_place(target, -1)}) lies beyond the "
            f"{target.num_rows:,} rows of shard {layout.shard_name(target.shard)}; its layout may not be {layout}"
        )
    into = np.zeros((target.num_rows, dim), dtype=dtype)
    for number in np.unique(where.partition):
        rows = target.partitions[number].rows()
        if rows.shape[1] != dim or rows.dtype != dtype:
            raise CorruptFile(
                f"{target.partitions[number].embeddings} has {rows.shape[1]} numbers a row, {rows.dtype}: "
                f"expected {dim}, {np.dtype(dtype)}, like the others"
            )
        here = where.partition == number
        into[where.index[here]] = rows[where.row[here]]
    if (broken := np.flatnonzero(np.isnan(into).any(axis=1))).size:
        raise CorruptFile(f"the {target.kind} of {layout.key(target.shard, int(broken[0]))} holds NaN; embed it again")
    return into


def _place(target: Target, position: int) -> str:
    file = target.partitions[int(target.where.partition[position])].embeddings.name
    return f"row {int(target.where.row[position])} of {file}"


def reorder(
    sharded: Manifest, embedded: Manifest, settings: Reorder, lake: Lake, *, progress: Progress = SILENT
) -> StageResult:
    """Reorder the embeddings of a dataset. The widths come from the shard manifest and are never asked.

    Raises what `gather` raises, and KeyOutsideShard for a key of a shard that nobody planned.
    """
    with lake.writer():
        inputs = {"shard": sharded.digest, "embed": embedded.digest}
        identity = manifests.identity_of(STAGE, VERSION, settings.what(), inputs)
        if done := manifests.is_done(lake, STAGE, identity):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        layout = KeyLayout.parse(sharded.details["layout"])
        clip, dim = embedded.details["clip"], int(embedded.details["dim"])
        num_rows = {shard["number"]: shard["num_rows"] for shard in sharded.details["shards"]}
        progress.begin(STAGE, len(KINDS) * len(num_rows), "files")
        with contextlib.ExitStack() as files:
            targets = _targets(embedded, layout, num_rows, lake, files)
            missing = []
            parts = []
            for target in targets:
                name = f"{clip}-{target.kind}-{layout.shard_name(target.shard)}"
                made_of = digest_of([VERSION, str(layout), target.num_rows, _sources(target, embedded)])
                if part := manifests.find_part(lake, STAGE, name, made_of):
                    parts.append(part)
                    progress.advance()
                else:
                    missing.append((target, name, made_of))

            def make(job: tuple[Target, str, str]) -> Part:
                target, name, made_of = job
                return _make(target, name, made_of, layout, clip, dim, embedded.details["dtype"], lake)

            with ThreadPoolExecutor(settings.threads or os.cpu_count()) as pool:
                for part, (target, _, _) in zip(pool.map(make, missing), missing, strict=True):
                    parts.append(part)
                    progress.advance()
                    _log(Path(part.files[0].path).name, target)
        num_placed = sum(len(target.where.index) for target in targets if target.kind == KINDS[0])
        made = Manifest.make(
            stage=STAGE,
            version=VERSION,
            recipe=settings.what(),
            inputs=inputs,
            counts=Counts(in_=embedded.counts.out, out=num_placed),
            files=[entry for part in parts for entry in part.files],
            details={
                "layout": str(layout),
                "clip": clip,
                "dim": dim,
                "dtype": embedded.details["dtype"],
                "num_zero_rows": sum(num_rows.values()) - num_placed,
            },
            versions=library_versions("numpy", "pyarrow"),
            previous=manifests.latest(lake, STAGE),
        )
        manifests.publish(lake, made)
        log.info("reorder: %d rows into %d files, layout %s", num_placed, len(made.files), layout)
        return StageResult(made, "done")


def _targets(
    embedded: Manifest, layout: KeyLayout, num_rows: dict[int, int], lake: Lake, files: contextlib.ExitStack
) -> list[Target]:
    """Every file to make, with where its rows lie. Metadata is read once, for both kinds."""
    of_kind: dict[str, list[Partition]] = {kind: [] for kind in KINDS}
    names: dict[str, dict[str, Path]] = {}
    for entry in embedded.files:
        stem, _, number = Path(entry.path).stem.rpartition("_")
        names.setdefault(number, {})[stem] = files.enter_context(lake.local(entry.path))
    for number in sorted(names):
        for kind in KINDS:
            of_kind[kind].append(Partition(names[number][kind], names[number]["metadata"]))
    table = key_table([partition.keys() for partition in of_kind[KINDS[0]]], layout)
    if strangers := sorted(set(np.unique(table.shard).tolist()) - num_rows.keys()):
        raise KeyOutsideShard(
            f"embeddings name shard {layout.shard_name(strangers[0])}, which the shard manifest does not; "
            "embed into a fresh folder"
        )
    return [
        Target(shard, kind, size, table.of_shard(shard), of_kind[kind])
        for kind in KINDS
        for shard, size in sorted(num_rows.items())
    ]


def _sources(target: Target, embedded: Manifest) -> list[list[Any]]:
    """The files that a target's rows come from, by digest: what its part is made of."""
    names = {target.partitions[number].embeddings.name for number in np.unique(target.where.partition)}
    rows = [target.where.index.tolist(), target.where.partition.tolist(), target.where.row.tolist()]
    return [[entry.path, entry.sha256] for entry in embedded.files if Path(entry.path).name in names] + [
        [digest_of(rows)]
    ]


def _make(
    target: Target, name: str, made_of: str, layout: KeyLayout, clip: str, dim: int, dtype: str, lake: Lake
) -> Part:
    rows = gather(target, layout, dim, dtype)
    file = f"{target.kind}_{layout.shard_name(target.shard)}.npy"
    with lake.scratch(STAGE) as scratch:
        np.save(scratch / file, rows)
        entry = lake.publish_if_new(scratch / file, f"reordered/{clip}/{target.kind}/{file}")
    part = Part(name=name, identity=made_of, files=(entry,))
    manifests.publish_part(lake, STAGE, part)
    return part


def _log(file: str, target: Target) -> None:
    # From the thread that runs the stage: a Prefect run's log takes lines from no other.
    log.info("reorder %s: %d rows, %d of them zero", file, target.num_rows, target.num_rows - len(target.where.index))


@dataclass(frozen=True, slots=True)
class Reordered:
    """What a stand-alone reordering did."""

    layout: KeyLayout
    kinds: tuple[str, ...]
    num_shards: int
    num_rows: int
    num_zero_rows: int


def reorder_folder(
    embeddings: Path,
    metadata: Path,
    output: Path,
    layout: KeyLayout | None = None,
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Reordered:
    """Reorder any output of clip-retrieval, without a lake.

    `embeddings` is a folder of img_emb_N.npy or text_emb_N.npy, or one that holds img_emb/ and text_emb/. Without a
    `layout` the keys must prove img2dataset's own. Every shard gets the rows of the fullest one, trailing gaps as
    zeros; a shard of which nothing was embedded gets zeros throughout.

    Raises LayoutError, StageNotDone, CorruptFile, DuplicateKey; StageError if `output` holds files of another run.
    """
    kinds = [kind for kind in KINDS if _folder_of(embeddings, kind) is not None] or [KINDS[0]]
    results = []
    for kind in kinds:
        partitions = find_partitions(_folder_of(embeddings, kind) or embeddings, metadata, kind)
        keys = [partition.keys() for partition in partitions]
        if not any(keys):
            raise CorruptFile(f"{partitions[0].embeddings} and its fellows hold no row: there is nothing to reorder")
        layout = layout or infer_layout([key for of_partition in keys for key in of_partition])
        table = key_table(keys, layout)
        size = int(table.index.max()) + 1
        shards = range(int(table.shard.max()) + 1)
        first = partitions[0].rows()
        _refuse_strangers(output / kind, {f"{kind}_{layout.shard_name(shard)}.npy" for shard in shards})
        progress.begin(f"reorder {kind}", len(shards), "files")
        targets = [Target(shard, kind, size, table.of_shard(shard), partitions) for shard in shards]
        write = _writer(output / kind, layout, first.shape[1], first.dtype)
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for target, file in zip(targets, pool.map(write, targets), strict=True):
                progress.advance()
                _log(file, target)
        num_rows = len(table.index)
        results.append(Reordered(layout, tuple(kinds), len(shards), num_rows, len(shards) * size - num_rows))
    return results[0]


def _refuse_strangers(folder: Path, ours: set[str]) -> None:
    """A folder that holds other files than those to come would be read as one dataset with them."""
    there = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if strangers := [name for name in there if name not in ours]:
        raise StageError(
            f"{folder} holds {strangers[0]}, which this layout does not make: dalle2-pytorch's loaders would read it "
            "beside the others; give an empty --output"
        )


def _folder_of(embeddings: Path, kind: str) -> Path | None:
    for folder in (embeddings / kind, embeddings):
        if folder.is_dir() and any(folder.glob(f"{kind}_*.npy")):
            return folder
    return None


def _writer(folder: Path, layout: KeyLayout, dim: int, dtype: npt.DTypeLike) -> Callable[[Target], str]:
    folder.mkdir(parents=True, exist_ok=True)

    def write(target: Target) -> str:
        file = folder / f"{target.kind}_{layout.shard_name(target.shard)}.npy"
        # Outside the folder's listing by its name: dalle2-pytorch's loaders parse every file they find.
        made = folder.parent / f".{file.name}.{os.getpid()}"
        with made.open("wb") as stream:
            np.save(stream, gather(target, layout, dim, dtype))
        made.replace(file)
        return file.name

    return write
