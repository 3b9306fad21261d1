"""Compaction: pictures that live in shards not worth keeping get new keys in new, full shards; the others stay.

A shard leaves the dataset
- if more than a fifth of its rows have a tombstone,
- if its tar holds a picture that was forgotten, alive or not,
- if it is one of four or more of its split that are less than a quarter full: what weekly deltas leave.

Nothing that was written is changed: the new snapshot has the identity of the one it replaces, since it covers the same,
and another digest. The old tars lie where they lay until `gc` finds that no snapshot names them.

A picture on which img2dataset failed does not count as dead: it would fail in its new shard too, and that would be
compacted again, every month.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass

from sp_data import manifest as manifests
from sp_data.dataset.shards.find import sightings
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
    """What was done. `manifest` is the shard stage's newest; numbers are those of shards."""

    manifest: Manifest
    state: State
    why: dict[int, str]
    """Each shard that left, and for what: FORGOTTEN, DEAD or SMALL_ONES."""
    added: tuple[int, ...]
    num_moved: int
    """Pictures that have new keys."""
    stages: tuple[str, ...] = ()
    """Those after it that had to work."""

    def __str__(self) -> str:
        if not self.why:
            return "no shard to compact" if self.stages else "unchanged"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(Counter(self.why.values()).items()))
        return (
            f"{len(self.why):,} shards ({reasons}) became {len(self.added):,}; {self.num_moved:,} pictures have new "
            "keys; what is left of the old shards goes with `sp-data gc --delete`"
        )


def compact(recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Compacted:
    """Compact the shards, then embed, reorder and verify as far as that had been done before.

    Raises StageNotDone if the shards are not up to date, StageError for an imported dataset.
    """
    with lake.writer():
        ready = as_far_as_before(recipe, lake)
        done = compact_shards(recipe, lake, progress=progress)
        worked = run_stages(
            [stage for stage in ready if stage in ("embed", "reorder", "verify")], recipe, lake, progress
        )
    state: State = "done" if done.why or worked else "unchanged"
    return Compacted(done.manifest, state, done.why, done.added, done.num_moved, worked)


def compact_shards(recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Compacted:
    """The shards alone. Raises as `compact`."""
    if recipe.source.imported is not None:
        raise StageError(
            f"dataset {lake.dataset!r} was imported: its tars are kept byte for byte and cannot be compacted; take out "
            "of the imported folder what shall go, remove the dataset, and run `sp-data import` again"
        )
    with lake.writer():
        newest = done_manifest("shard", recipe, lake, for_what="compact")
        # A kill may have come between the two files of a snapshot; this one is then the newer.
        newest = manifests.load(lake, "shard", newest.identity) or newest
        manifests.make_latest(lake, newest)
        why = victims(newest, lake, read_forgotten(lake))
        if not why:
            return Compacted(newest, "unchanged", {}, (), 0)
        result = run_stage("shard", recipe, lake, leave_out=frozenset(why), progress=progress)
    before = {one["number"] for one in newest.details["shards"]}
    added = [one for one in result.manifest.details["shards"] if one["number"] not in before]
    return Compacted(
        result.manifest,
        result.state,
        why,
        tuple(one["number"] for one in added),
        sum(one["num_samples"] for one in added),
    )


def victims(sharded: Manifest, lake: Lake, forgotten: Forgotten) -> dict[int, str]:
    """Numbers of the shards that are not worth keeping, each with the reason, in their order."""
    layout = KeyLayout.parse(sharded.details["layout"])
    num_dead = Counter(layout.split(key)[0] for key in sharded.details["tombstones"])
    held = {one.shard for one in sightings(lake, sharded, forgotten.titles, forgotten.sha1s) if one.there}
    small: defaultdict[str, list[int]] = defaultdict(list)
    why: dict[int, str] = {}
    for listed in sharded.details["shards"]:
        number, num_rows = listed["number"], listed["num_rows"]
        if num_rows < SMALL * int(sharded.details["samples_per_shard"]):
            small[listed["split"]].append(number)
        if number in held:
            why[number] = FORGOTTEN
        elif num_dead[number] > MAX_DEAD * num_rows:
            why[number] = DEAD
    for numbers in small.values():
        if len(numbers) >= MANY_SMALL:
            why = {**dict.fromkeys(numbers, SMALL_ONES), **why}
    for number, reason in sorted(why.items()):
        log.info("compact: shard %s leaves (%s)", layout.shard_name(number), reason)
    return dict(sorted(why.items()))
