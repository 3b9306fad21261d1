"""Verify: every joint of the dataset, so that a wrong pairing is an error with a name and never a worse model.

files      every file of every manifest is there with its size (deep: with its sha256)
counts     what one stage let out is what the next took in
keys       tar = successful rows of the parquet = rows of the embeddings' metadata
rows       each reordered row is the embeddings' row of that key, bit for bit; zero where no picture is
numbers    dtype, width, unit length, no NaN
captions   the text in the shard is the text that was embedded, and it is not empty
samples    what lives in the shards is what curate kept: title, bytes, caption, split; what is gone has a tombstone
splits     a shard is of one split, no page is in two, and no two near-duplicates are
pictures   pictures and captions from the tars, embedded again, are their own rows' (deep: all of them)
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Iterator
from typing import Any

from sp_data import manifest as manifests
from sp_data.dataset.checks import (
    check_captions,
    check_counts,
    check_files,
    check_keys,
    check_near_duplicates,
    check_rows,
    check_samples,
    check_split,
    samples_of,
)
from sp_data.dataset.look import Look, Rows, as_problem, read_shard
from sp_data.dataset.partitions import KINDS
from sp_data.dataset.reembed import EVERY_KEY, check_pictures
from sp_data.errors import VerifyFailed
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Recipe
from sp_data.stage import VERSION_OF, Effort, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "verify"
VERSION = VERSION_OF[STAGE]
ROAD = ("scrape", "curate", "shard", "embed", "reorder")


def verify(
    road: dict[str, Manifest],
    recipe: Recipe,
    lake: Lake,
    *,
    effort: Effort | None = None,
    progress: Progress = SILENT,
) -> StageResult:
    """Check every joint; publish the dataset manifest if all hold.

    `road` maps each earlier stage to its manifest. Without an `effort`, what was verified before and is there with its
    sizes is not looked at again.

    Raises VerifyFailed with every problem found.
    """
    inputs = {stage: road[stage].digest for stage in ROAD}
    settings = recipe.verify.what()
    identity = manifests.identity_of(STAGE, VERSION, settings, inputs)
    with lake.writer():
        done = manifests.is_done(lake, STAGE, identity)
        if done and effort is None and not damaged(road, lake):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        look = inspect(road, recipe, lake, effort or Effort(), progress=progress)
        if look.problems:
            raise VerifyFailed(look.problems, look.num_checked)
        made = Manifest.make(
            stage=STAGE,
            version=VERSION,
            recipe=settings,
            inputs=inputs,
            counts=Counts(in_=look.num_checked, out=look.num_checked),
            files=[],
            details=dataset_details(road, look.layout),
            versions=library_versions("clip-retrieval", "torch", "numpy"),
            previous=manifests.latest(lake, STAGE),
        )
        if done and done.digest == made.digest:
            return StageResult(done, "done")
        manifests.publish(lake, made)
        log.info("verify: %d samples in %d shards hold", look.num_checked, len(made.details["shards"]))
        return StageResult(made, "done")


def damaged(road: dict[str, Manifest], lake: Lake) -> bool:
    return any(manifests.missing_files(lake, manifest.files) for manifest in road.values())


def dataset_details(road: dict[str, Manifest], layout: KeyLayout) -> dict[str, Any]:
    """What training takes: every shard with its files and their digests, the layout, the CLIP, the tombstones."""
    clip = road["embed"].details["clip"]

    def listed(stage: str, path: str) -> dict[str, str]:
        return {"path": path, "sha256": road[stage].file(path).sha256}

    shards = []
    for shard in road["shard"].details["shards"]:
        name = layout.shard_name(shard["number"])
        files = {
            "tar": listed("shard", f"shards/{name}.tar"),
            "parquet": listed("shard", f"shards/{name}.parquet"),
            **{kind: listed("reorder", f"reordered/{clip}/{kind}/{kind}_{name}.npy") for kind in KINDS},
        }
        shards.append({**shard, **files})
    return {
        "layout": str(layout),
        "clip": clip,
        "clip_model": road["embed"].details["clip_model"],
        "dim": road["embed"].details["dim"],
        "dtype": road["embed"].details["dtype"],
        "catalogue": road["scrape"].digest,
        "tombstones": road["shard"].details["tombstones"],
        "shards": shards,
    }


def inspect(
    road: dict[str, Manifest],
    recipe: Recipe,
    lake: Lake,
    effort: Effort,
    *,
    progress: Progress = SILENT,
) -> Look:
    """Look at everything and collect what is wrong. Raises only what makes looking impossible."""
    look = Look(road, lake, effort.deep)
    shards = road["shard"].details["shards"]
    progress.begin(STAGE, len(shards), "shards")
    check_files(look)
    check_counts(look)
    pages: dict[str, str] = {}
    live: dict[str, str] = {}
    wanted = effort.reembed if effort.reembed is not None or effort.deep else recipe.verify.reembed
    drawn: list[Drawn] = []
    readable: list[int] = []
    num_problems = len(look.problems)
    for place, listed in enumerate(shards):
        with as_problem(look, "files"):
            rows = read_shard(look, listed)
            check_keys(look, rows)
            check_rows(look, rows)
            check_captions(look, rows)
            check_split(look, rows, pages)
            look.num_checked += len(rows.embedded)
            # The curated table of an imported dataset was made from its shards: it could say nothing else.
            live |= {} if recipe.source.imported else samples_of(look, rows)
            readable.append(place)
            if wanted is not None:
                drawn = heapq.nsmallest(wanted, [*drawn, *_draw(look, rows, place)])
        progress.advance()
    # Where a shard could not be read, or a row is wrong, what is missing from the whole is named already.
    if len(look.problems) == num_problems:
        if not recipe.source.imported:
            check_samples(look, live)
        check_near_duplicates(look)
    if wanted is None:
        check_pictures(look, dict.fromkeys(readable, EVERY_KEY), recipe)
    elif drawn:
        of_shard: dict[int, set[str]] = {}
        for _, place, key in drawn:
            of_shard.setdefault(place, set()).add(key)
        check_pictures(look, of_shard, recipe)
    return look


Drawn = tuple[bytes, int, str]
"""A lot, the shard's place in the list, and the key."""


def _draw(look: Look, rows: Rows, place: int) -> Iterator[Drawn]:
    """A lot for each picture, from the data: the same dataset is looked at in the same places, another in others."""
    seed = look.road["reorder"].digest
    known = {row["key"] for row in rows.parquet}
    for key in rows.embedded:
        if key in known:
            yield hashlib.sha256(f"{seed} {key}".encode()).digest(), place, key
