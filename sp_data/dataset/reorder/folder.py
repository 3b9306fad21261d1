"""Reorder any output of clip-retrieval, without a lake: `sp-data reorder --embeddings DIR --metadata DIR --output DIR`.

DIR/img_emb/img_emb_00007.npy     as the stage writes it
DIR/.reordered.jsonl              what each finished file was made of: a second run makes only the missing files
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sp_data.canonical import digest_of, parse_json
from sp_data.dataset.reorder.gather import Sources
from sp_data.dataset.reorder.layout import FoundLayout, layout_of_keys, layout_of_shards
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS, Partition, find_partitions
from sp_data.dataset.reorder.plan import ReorderPlan, keys_of, plan_rows
from sp_data.dataset.reorder.stage import Target, log_made, write_target
from sp_data.errors import CorruptFile, LayoutError, StageError
from sp_data.keys import KeyLayout
from sp_data.lake import disk_errors
from sp_data.runtime.jobs import ThreadRunner
from sp_data.runtime.progress import SILENT, Progress

log = logging.getLogger(__name__)

JOURNAL = ".reordered.jsonl"


@dataclass(frozen=True, slots=True)
class Reordered:
    """What `reorder_folder` did."""

    found_layout: FoundLayout
    kinds: tuple[str, ...]
    num_rows: int
    num_zero_rows: int
    num_unchanged: int
    """Files that an earlier run made of the same rows."""
    seconds_moving: float
    """Seconds spent on gathering, checking and writing rows."""

    @property
    def layout(self) -> KeyLayout:
        return self.found_layout.layout

    @property
    def num_shards(self) -> int:
        return len(self.found_layout.num_rows)


def reorder_folder(
    embeddings: Path,
    metadata: Path,
    output: Path,
    layout: KeyLayout | None = None,
    *,
    shards: Path | None = None,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Reordered:
    """Reorder the partitions of one folder.

    `embeddings` is a folder of img_emb_N.npy or text_emb_N.npy, or one that holds img_emb/ and text_emb/. `shards` is
    img2dataset's folder: its files prove the layout and give the number of rows of each shard. Without it, either
    `layout` is given or the keys must prove img2dataset's own layout, and every shard gets as many rows as the fullest
    one, with zeros for trailing gaps; a shard of which nothing was embedded is all zeros.

    Raises LayoutError, StageNotDone, CorruptFile, DuplicateKey, KeyOutsideShard; StageError if `output` holds files of
    another run.
    """
    kinds = tuple(kind for kind in EMBEDDING_KINDS if _folder_of(embeddings, kind) is not None) or EMBEDDING_KINDS[:1]
    partitions_of = {
        kind: find_partitions(_folder_of(embeddings, kind) or embeddings, metadata, kind) for kind in kinds
    }
    partitions = partitions_of[kinds[0]]
    with disk_errors(str(output), "give another --output"):
        # Unnamed files lie in the folder that was given, where it is there: it may be a mount in a read-only one.
        workplace = output if output.is_dir() else output.parent
        workplace.mkdir(parents=True, exist_ok=True)
        # Asked before the long work: whether it can be written.
        tempfile.TemporaryFile(dir=workplace).close()
    keys = keys_of(partitions, workplace)
    if not len(keys.numbers):
        raise CorruptFile(
            f"{partitions[0].embeddings} and its other partitions hold no row: there is nothing to reorder"
        )
    found_layout = _layout_from_shards(shards, layout) or layout_of_keys(
        keys.numbers, keys.width, f"keys in {metadata}", layout
    )
    if found_layout.layout.width != keys.width:
        raise LayoutError(
            f"layout {found_layout.layout} asks for keys of {found_layout.layout.width} digits, these have {keys.width}"
        )
    plan = plan_rows(keys, found_layout.layout, found_layout.num_rows, workplace)
    sources = {kind: Sources.open(partitions_of[kind], np.diff(keys.starts).tolist()) for kind in kinds}
    names = [found_layout.layout.shard_name(shard) for shard in found_layout.num_rows]
    for kind in kinds:
        _refuse_other_files(output / kind, {f"{kind}_{name}.npy" for name in names})
    num_unchanged, seconds = 0, 0.0
    for kind in kinds:
        started = time.perf_counter()
        num_unchanged += _make(plan, sources[kind], partitions_of[kind], kind, output, threads, progress)
        seconds += time.perf_counter() - started
    num_zero_rows = sum(found_layout.num_rows.values()) - plan.num_placed
    return Reordered(found_layout, kinds, plan.num_placed, num_zero_rows, num_unchanged, seconds)


def _layout_from_shards(shards: Path | None, layout: KeyLayout | None) -> FoundLayout | None:
    if shards is None:
        return None
    found_layout = layout_of_shards(shards)
    if layout is not None and layout != found_layout.layout:
        raise LayoutError(f"--layout says {layout}, but the keys in {shards} are {found_layout}")
    return found_layout


def _make(
    plan: ReorderPlan,
    sources: Sources,
    partitions: list[Partition],
    kind: str,
    output: Path,
    threads: int,
    progress: Progress,
) -> int:
    """Make the files of one kind; gives the number of files that an earlier run made of the same rows."""
    folder = output / kind
    folder.mkdir(parents=True, exist_ok=True)
    stamp = digest_of([_stamp(partition) for partition in partitions])
    made_of_file = _read_journal(output)
    progress.begin(f"reorder {kind}", len(plan.num_rows), "files")

    def make(target: Target) -> tuple[str, bool]:
        name = f"{target.kind}_{plan.layout.shard_name(target.shard)}.npy"
        made_of = hashlib.sha256(target.rows.tobytes() + stamp.encode()).hexdigest()
        if made_of_file.get(name) == made_of and (folder / name).exists():
            return name, True
        # Not in `folder`: dalle2-pytorch's loaders parse every file they find there.
        unfinished = output / f".{name}.{os.getpid()}"
        try:
            write_target(target, plan.layout, sources, unfinished)
            unfinished.replace(folder / name)
        except BaseException:  # Ctrl-C too; after the renaming there is nothing to remove, and looking costs time
            unfinished.unlink(missing_ok=True)
            raise
        journal.write(json.dumps({"file": name, "made_of": made_of}) + "\n")
        return name, False

    num_unchanged = 0
    targets = [Target(shard, kind, plan.of_shard(shard)) for shard in sorted(plan.num_rows)]
    # Line by line: if the run is killed, all lines but the last are whole.
    with (output / JOURNAL).open("a", buffering=1) as journal:
        for target, (name, unchanged) in zip(targets, ThreadRunner(threads).map(make, targets), strict=True):
            progress.advance()
            num_unchanged += unchanged
            log_made(name, len(target.rows), target.num_zero_rows)
    return num_unchanged


def _stamp(partition: Partition) -> list[object]:
    status = partition.embeddings.stat()
    return [partition.embeddings.name, status.st_size, status.st_mtime_ns]


def _read_journal(output: Path) -> dict[str, str]:
    """File -> digest of what it was made of. If a killed run cut the last line, its file is made again."""
    if not (output / JOURNAL).exists():
        return {}
    made_of_file: dict[str, str] = {}
    for line in (output / JOURNAL).read_text().splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        made_of_file[entry["file"]] = entry["made_of"]
    return made_of_file


def _refuse_other_files(folder: Path, expected: set[str]) -> None:
    """Raise StageError if the folder holds other files: loaders would read them as part of the dataset."""
    names = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if unexpected := [name for name in names if name not in expected]:
        raise StageError(
            f"{folder} holds {unexpected[0]}, which this layout does not make: dalle2-pytorch's loaders would read it "
            "with the others; give an empty --output"
        )


def _folder_of(embeddings: Path, kind: str) -> Path | None:
    for folder in (embeddings / kind, embeddings):
        if folder.is_dir() and any(folder.glob(f"{kind}_*.npy")):
            return folder
    return None
