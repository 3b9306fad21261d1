"""gc: find and remove what a lake no longer needs.

It keeps the latest snapshots, every checkpoint's dataset, and what is being made. A snapshot is a manifest of each
stage; kept with it are the manifests that it was made from (by digest, where they exist), and every file that one of
these names:

    manifest.files                           catalogues, tables, shards, embeddings, reordered rows
    a catalogue's `original`                 originals/
    a curated table's `path`                 normalised/ and originals/
    a shard's `path`                         the same folders, for pictures that have a tombstone by now: a lost tar is
                                             made again with the same bytes only if all of its pictures are there
    a dataset manifest's digest              indexes/: what it is searched with
    a dataset manifest's shards              shards/, reordered/ and index/: a compaction replaces the shard manifest of
                                             the same identity; then only the dataset manifest names the old shards

What an unfinished stage has made so far is kept: the next run goes on with it. Runs, generated pictures, reports,
quarantined files and the scrape's state are never touched.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_dropped, read_kept
from sp_data.dataset.loader.tar_index import index_path
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.find import holds_forgotten
from sp_data.dataset.shards.stage import read_columns
from sp_data.errors import UsageError
from sp_data.generation.search_index import INDEXES, index_folder
from sp_data.keys import KeyLayout
from sp_data.lake import NUM_AT_ONCE, Lake, files_below, is_alive, is_temporary
from sp_data.manifest import Manifest, ShardPart
from sp_data.pipeline import DATASET_STAGES, STAGES, stand
from sp_data.recipe import Recipe
from sp_data.training.trained import WORDS, adopted_checkpoints, runs_in_progress, trained_checkpoints, words_paths
from sp_data.wiki.catalogue import read_catalogue
from sp_data.wiki.forgotten import read_forgotten
from sp_data.wiki.http.journal import START

log = logging.getLogger(__name__)

KEEP = 3
"""Snapshots of each stage."""
INDEX = "index"
"""Folder of the loader's tar indexes."""
TEMPORARY = "temporary names"


@dataclass(slots=True)
class Waste:
    """What nothing names any more: path -> bytes, in the order in which it must be removed."""

    manifests: dict[str, int] = field(default_factory=dict)
    """Removed first, so that after an interruption no manifest names a removed file."""
    files: dict[str, int] = field(default_factory=dict)
    temporary: dict[str, int] = field(default_factory=dict)
    scratch: list[Path] = field(default_factory=list)
    """Folders that dead processes left; the lake does not list them."""
    warnings: list[str] = field(default_factory=list)

    @property
    def num_files(self) -> int:
        return sum(files for files, _ in self.folders.values())

    @property
    def num_bytes(self) -> int:
        return sum(num_bytes for _, num_bytes in self.folders.values())

    @property
    def folders(self) -> dict[str, tuple[int, int]]:
        """Folder -> (files, bytes), for each folder that has any."""
        sizes_of: defaultdict[str, list[int]] = defaultdict(list)
        for path, size in (*self.manifests.items(), *self.files.items()):
            sizes_of[path.partition("/")[0]].append(size)
        for size in self.temporary.values():
            sizes_of[TEMPORARY].append(size)
        return {name: (len(sizes), sum(sizes)) for name, sizes in sorted(sizes_of.items())}


def collect(recipe: Recipe, lake: Lake, *, keep: int = KEEP, delete: bool = False) -> Waste:
    """Find what neither the latest `keep` snapshots nor a checkpoint's dataset names; with `delete`, remove it.

    Raises UsageError for `keep` below 1, CorruptFile for a manifest, a table or a checkpoint's record that cannot be
    read: what it names is unknown, so nothing is removed.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: the newest snapshot is the dataset; keep at least 1")
    # Before the lock is taken: taking it sweeps the scratch folders.
    scratch_folders = lake.abandoned_scratch()
    scratch_files = {str(path.relative_to(lake.root)): path.stat().st_size for path in _files_in(scratch_folders)}
    with lake.writer():
        waste = find_waste(recipe, lake, keep)
        waste.temporary |= scratch_files
        if delete:
            _remove(waste, lake)
    return waste


def find_waste(recipe: Recipe, lake: Lake, keep: int) -> Waste:
    """Find the waste and remove nothing. The caller holds the writer's lock."""
    waste = Waste()
    kept = _Kept.of(lake, keep, waste.warnings)
    named = set(_files_of(kept, lake, waste.warnings))
    unfinished = _unfinished(recipe, lake)
    # A stage without parts fills its folders before a manifest names the files.
    untouched = {folder for name in unfinished if not STAGES[name].leaves_parts for folder in STAGES[name].folders}
    for stage in DATASET_STAGES:
        parts: dict[str, int] = {}
        for path, size in lake.everything(f"manifests/{stage}").items():
            if is_temporary(path):
                waste.temporary[path] = size
            elif "/parts/" in path:
                parts[path] = size
            elif path != f"manifests/{stage}/latest.json" and path not in kept.paths:
                waste.manifests[path] = size
        for path, files in _files_of_parts(lake, list(parts)):
            if stage in unfinished:
                named |= files
            elif not files or not files <= named:
                waste.files[path] = parts[path]
    for folder in _data_folders():
        for path, size in lake.everything(folder).items():
            if is_temporary(path):
                waste.temporary[path] = size
            elif path not in named and folder not in untouched:
                waste.files[path] = size
    waste.scratch = _left_by_exports(lake)
    for file in _files_in(waste.scratch):
        waste.temporary[str(file.relative_to(lake.root))] = file.stat().st_size
    if unfinished:
        waste.warnings.append(f"not done: {', '.join(unfinished)}; what was made so far stays for the next run")
    return waste


def _data_folders() -> tuple[str, ...]:
    """Folders of the lake that only manifests account for."""
    return (*(folder for name in DATASET_STAGES for folder in STAGES[name].folders), INDEX, WORDS, INDEXES)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The manifests to keep, by stage, identity and digest."""

    manifests: dict[tuple[str, str, str], Manifest]

    @property
    def paths(self) -> set[str]:
        return {manifests.manifest_path(stage, identity) for stage, identity, _ in self.manifests}

    @classmethod
    def of(cls, lake: Lake, keep: int, warnings: list[str]) -> _Kept:
        by_stage: dict[str, list[Manifest]] = {stage: manifests.all_of(lake, stage) for stage in DATASET_STAGES}
        waiting = [manifest for stage, listed in by_stage.items() for manifest in _latest(lake, stage, listed, keep)]
        waiting += _trained_on(lake, by_stage["verify"], {manifest.digest for manifest in waiting}, warnings)
        # Oldest first, so that the newest counts of several with the same digest.
        by_age = [manifest for listed in by_stage.values() for manifest in listed]
        by_age.sort(key=lambda manifest: manifest.made_at)
        by_digest = {(manifest.stage, manifest.digest): manifest for manifest in by_age}
        by_digest |= {(manifest.stage, manifest.digest): manifest for manifest in waiting}
        kept: dict[tuple[str, str, str], Manifest] = {}
        while waiting:
            manifest = waiting.pop()
            if (manifest.stage, manifest.identity, manifest.digest) not in kept:
                kept[manifest.stage, manifest.identity, manifest.digest] = manifest
                waiting += [by_digest[made_from] for made_from in manifest.inputs.items() if made_from in by_digest]
        return cls(kept)


def _latest(lake: Lake, stage: str, listed: list[Manifest], keep: int) -> list[Manifest]:
    """The newest snapshot and its predecessors, `keep` in all; where the line of predecessors is shorter (a recipe was
    changed and changed back), the youngest of the others too."""
    newest = manifests.latest(lake, stage)
    if newest is None:
        return []
    by_identity = {manifest.identity: manifest for manifest in listed}
    line = [newest]
    while len(line) < keep:
        before = by_identity.get(line[-1].previous or "")
        if before is None or before.identity in {manifest.identity for manifest in line}:
            break
        line.append(before)
    of_line = {manifest.identity for manifest in line}
    others = [manifest for manifest in listed if manifest.identity not in of_line]
    others.sort(key=lambda manifest: (manifest.made_at, manifest.identity), reverse=True)
    # The newest identity's own file too: it may be one step ahead of latest.json.
    same = (manifest for manifest in listed if manifest.identity == newest.identity)
    return [*line, *others[: keep - len(line)], *same]


def _trained_on(lake: Lake, verified: list[Manifest], kept: set[str], warnings: list[str]) -> Iterator[Manifest]:
    """The datasets of checkpoints and of trainings that are under way.

    A dataset that holds forgotten pictures is not kept for a checkpoint: whoever had them forgotten wants the bytes
    gone.
    """
    forgotten = read_forgotten(lake)
    by_digest = {manifest.digest: manifest for manifest in verified}
    dataset_of_run = runs_in_progress(lake)
    checkpoints_of: defaultdict[str, list[str]] = defaultdict(list)
    for checkpoint in trained_checkpoints(lake):
        checkpoints_of[checkpoint.dataset].append(str(checkpoint))
    for checkpoint in adopted_checkpoints(lake):
        # Not those of another lake.
        if checkpoint.dataset in by_digest:
            checkpoints_of[checkpoint.dataset].append(str(checkpoint))
    for digest in sorted({*checkpoints_of, *dataset_of_run.values()} - kept):
        runs = [run for run, dataset in dataset_of_run.items() if dataset == digest]
        names = ", ".join(runs or checkpoints_of[digest][-1:])
        manifest = by_digest.get(digest)
        if manifest is None:
            warnings.append(f"{names} was trained on dataset {digest[:12]}, which has no manifest any more")
        elif not holds_forgotten(lake, manifest, forgotten):
            yield manifest
        elif runs:
            warnings.append(f"{names}: a training may need dataset {digest[:12]}, which holds forgotten pictures: kept")
            yield manifest
        else:
            warnings.append(
                f"{names} was trained on dataset {digest[:12]}, which holds forgotten pictures: it is not kept for that"
            )


def _files_of(kept: _Kept, lake: Lake, warnings: list[str]) -> Iterator[str]:
    shards: set[str] = set()
    for manifest in kept.manifests.values():
        yield from (entry.path for entry in manifest.files)
        try:
            if manifest.stage == "scrape":
                yield from filter(None, read_catalogue(lake, manifest)["original"].to_pylist())
            elif manifest.stage == "curate":
                yield from read_kept(lake, manifest, ["path"])["path"].to_pylist()
                dropped = read_dropped(lake, manifest, ["path", "original"])
                yield from filter(None, dropped["path"].to_pylist() + dropped["original"].to_pylist())
        except FileNotFoundError as error:
            warnings.append(
                f"{error.filename} of a snapshot of {manifest.made_at} is missing: the files that it named are unknown"
            )
        if manifest.stage == "shard":
            shards.update(entry.path for entry in manifest.files if entry.path.endswith(".parquet"))
        elif manifest.stage == "verify":
            layout = KeyLayout.parse(manifest.details["layout"])
            for shard in manifest.details["shards"]:
                yield from (shard[name]["path"] for name in ("tar", "parquet", *EMBEDDING_KINDS))
                yield f"shards/{layout.shard_name(shard['number'])}_stats.json"
                yield index_path(shard, layout)
                shards.add(shard["parquet"]["path"])
            for split in {shard["split"] for shard in manifest.details["shards"]}:
                yield from words_paths(str(manifest.details["clip"]), manifest.digest, split)
            yield from lake.list(index_folder(manifest.digest))
    for path in sorted(shards):
        # A missing parquet can only be made again from what the tables name.
        with contextlib.suppress(FileNotFoundError):
            yield from read_columns(lake, path, ["path"])["path"].to_pylist()


def _unfinished(recipe: Recipe, lake: Lake) -> list[str]:
    standing = stand(recipe, lake, until=DATASET_STAGES[-1])
    return [
        stage
        for stage in DATASET_STAGES
        if standing[stage].state != "done" or (stage == "scrape" and lake.exists(START))
    ]


def _files_of_parts(lake: Lake, paths: list[str]) -> Iterator[tuple[str, set[str]]]:
    """Each part's path with the files that it names, none if the part cannot be read."""
    for path, data in zip(paths, lake.read_all(paths), strict=True):
        try:
            yield path, {entry.path for entry in ShardPart.model_validate_json(data).files}
        except ValidationError:
            yield path, set()


def _remove(waste: Waste, lake: Lake) -> None:
    with ThreadPoolExecutor(1 if lake.is_local else NUM_AT_ONCE) as pool:
        for paths in (waste.manifests, waste.files, waste.temporary):
            # `list` waits: all of one kind are removed before the next kind begins.
            list(pool.map(lake.remove, paths))
    for folder in waste.scratch:
        shutil.rmtree(folder, ignore_errors=True)
    if lake.is_local:
        for name in (*_data_folders(), *(f"manifests/{stage}" for stage in DATASET_STAGES)):
            _remove_empty(Path(lake.full(name)))
    log.info("gc: removed %d files, %.1f MB", waste.num_files, waste.num_bytes / 1e6)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        for inner in folder.iterdir():
            _remove_empty(inner)
        if not any(folder.iterdir()):
            folder.rmdir()


def _left_by_exports(lake: Lake) -> list[Path]:
    """Folders that killed exports left in the dataset's own folder (exchange/export/run.py)."""
    if not lake.is_local or not Path(lake.root).exists():
        return []
    folders = [*Path(lake.root).glob(".*.export-*"), *Path(lake.root).glob(".*.before-*")]
    return [path for path in folders if not path.is_symlink() and not is_alive(path.name.rpartition("-")[2])]


def _files_in(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (folder / path.partition("/")[2] for path, _ in files_below(folder, folder.name))
