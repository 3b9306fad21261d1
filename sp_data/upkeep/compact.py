"""Compaction: pictures from shards that are not worth keeping get new keys in new, full shards; other shards stay.

A shard leaves the dataset
- if more than a fifth of its rows have a tombstone,
- if its tar holds a forgotten picture, alive or not,
- if it is one of four or more shards of its split that are less than a quarter full: what weekly changes leave.

No written file is changed. The new snapshot covers the same pictures as the one it replaces, so it has the same
identity, with another digest. The old tars stay until `gc` finds that no snapshot names them.

A picture on which img2dataset failed does not count as dead: it would fail in its new shard too, and that shard would
be compacted again, every month.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass

from sp_data import manifest as manifests
from sp_data.dataset.shards.find import find_samples
from sp_data.errors import StageError
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import as_far_as_before, done_manifest, run_stage, run_stages
from sp_data.recipe import Recipe
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import State
from sp_data.wiki.forgotten import Forgotten, read_forgotten

MAX_DEAD = 1 / 5
SMALL = 1 / 4
MANY_SMALL = 4

log = logging.getLogger(__name__)

FORGOTTEN, DEAD, SMALL_ONES = "forgotten", "tombstones", "small"


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did. `manifest` is the shard stage's newest; shards are given by their numbers."""

    manifest: Manifest
    state: State
    removed: dict[int, str]
    """Each shard that left the dataset, with the reason: FORGOTTEN, DEAD or SMALL_ONES."""
    added: tuple[int, ...]
    num_moved: int
    """Pictures that have new keys."""
    stages: tuple[str, ...] = ()
    """The later stages that had to work."""

    def __str__(self) -> str:
        if not self.removed:
            return "no shard to compact" if self.stages else "unchanged"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(Counter(self.removed.values()).items()))
        return (
            f"{len(self.removed):,} shards ({reasons}) became {len(self.added):,}; {self.num_moved:,} pictures have "
            "new keys"
        )


def compact(recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Compacted:
    """Compact the shards, then run embed, reorder and verify, those of them that had been done before.

    Raises StageNotDone if the shards are not up to date, StageError for an imported dataset.
    """
    with lake.writer():
        ready = as_far_as_before(recipe, lake)
        compacted = compact_shards(recipe, lake, progress=progress)
        stages = run_stages(
            [stage for stage in ready if stage in ("embed", "reorder", "verify")], recipe, lake, progress
        )
    state: State = "done" if compacted.removed or stages else "unchanged"
    return Compacted(compacted.manifest, state, compacted.removed, compacted.added, compacted.num_moved, stages)


def compact_shards(recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Compacted:
    """Compact the shards alone. Raises what `compact` raises."""
    if recipe.source.imported is not None:
        raise StageError(
            f"dataset {lake.dataset!r} was imported: its tars are kept byte for byte and cannot be compacted; remove "
            "unwanted pictures from the imported folder, remove the dataset, and run `sp-data import` again"
        )
    with lake.writer():
        newest = done_manifest("shard", recipe, lake, for_what="compact")
        # A kill may have come between the two files of a snapshot; the manifest loaded here is then the newer one.
        newest = manifests.load(lake, "shard", newest.identity) or newest
        manifests.make_latest(lake, newest)
        removed = shards_to_remove(newest, lake, read_forgotten(lake))
        if not removed:
            return Compacted(newest, "unchanged", {}, (), 0)
        result = run_stage("shard", recipe, lake, leave_out=frozenset(removed), progress=progress)
    old_numbers = {shard["number"] for shard in newest.details["shards"]}
    added = [shard for shard in result.manifest.details["shards"] if shard["number"] not in old_numbers]
    return Compacted(
        result.manifest,
        result.state,
        removed,
        tuple(shard["number"] for shard in added),
        sum(shard["num_samples"] for shard in added),
    )


def shards_to_remove(sharded: Manifest, lake: Lake, forgotten: Forgotten) -> dict[int, str]:
    """Number -> reason of each shard that is not worth keeping, in the order of numbers."""
    layout = KeyLayout.parse(sharded.details["layout"])
    num_dead = Counter(layout.split(key)[0] for key in sharded.details["tombstones"])
    samples = find_samples(lake, sharded, forgotten.titles, forgotten.sha1s)
    with_forgotten = {sample.shard for sample in samples if sample.in_tar}
    small: defaultdict[str, list[int]] = defaultdict(list)
    reasons: dict[int, str] = {}
    for listed in sharded.details["shards"]:
        number, num_rows = listed["number"], listed["num_rows"]
        if num_rows < SMALL * int(sharded.details["samples_per_shard"]):
            small[listed["split"]].append(number)
        if number in with_forgotten:
            reasons[number] = FORGOTTEN
        elif num_dead[number] > MAX_DEAD * num_rows:
            reasons[number] = DEAD
    for numbers in small.values():
        if len(numbers) >= MANY_SMALL:
            reasons = {**dict.fromkeys(numbers, SMALL_ONES), **reasons}
    for number, reason in sorted(reasons.items()):
        log.info("compact: shard %s leaves (%s)", layout.shard_name(number), reason)
    return dict(sorted(reasons.items()))
