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

Shards are looked at by themselves (shard_checks.py), so that other machines can; what is about all of them is put
together here (checks.py). What a CLIP finds alike is listed beside (close_pairs.py): it is to be looked at, not wrong.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from typing import Any

from sp_data import manifest as manifests
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.verify.close_pairs import MAX_FAST, close_pairs_path, find_close_pairs, to_csv
from sp_data.dataset.verify.context import CheckContext, Dataset
from sp_data.dataset.verify.dataset_checks import (
    PageSplits,
    SampleJoints,
    StageManifests,
    another_layout,
    check_counts,
    check_files,
    check_near_duplicates,
)
from sp_data.dataset.verify.options import VerifyOptions
from sp_data.dataset.verify.reembed import EVERY_KEY, PictureJob, check_pictures
from sp_data.dataset.verify.shard_checks import ShardJob, look_at
from sp_data.errors import VerifyFailed
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts
from sp_data.recipe import Recipe
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import SILENT, TOLD, Progress
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

log = logging.getLogger(__name__)

STAGE = "verify"
SHARDS_A_JOB = 16
"""Embedded again with one loading of the CLIP, where all of them are."""


def verify(run: StageRun, *, options: VerifyOptions | None = None) -> StageResult:
    """Check every joint; publish the dataset manifest if all hold.

    Without `options`, what was verified before and is there with its sizes is not looked at again.

    Raises VerifyFailed with every problem found.
    """
    road, lake, runner = dict(run.inputs), run.lake, run.runner or ThreadRunner()
    with lake.writer():
        done, newest = run.done(), run.newest()
        there = {manifests.manifest_path(one.stage, one.identity): one for one in (*road.values(), done) if one}
        there |= {f"manifests/{STAGE}/latest.json": newest} if newest else {}
        edited = {path: one for path, one in there.items() if not one.is_as_made}
        if done and options is None and not edited and not damaged(road, lake):
            return run.unchanged(done)
        look = inspect(road, run.recipe, lake, options or VerifyOptions(), runner=runner, progress=run.progress)
        for path, one in edited.items():
            message = f"does not have its digest {one.digest[:12]}…: it was edited; delete it"
            look.found("files", f"{message} and run {lake.command(one.stage)}", file=path)
        if look.problems:
            raise VerifyFailed(look.problems, look.num_checked)
        list_close_pairs(look, road, run.recipe, runner)
        output = StageOutput(
            counts=Counts(in_=look.num_checked, out=look.num_checked),
            files=[],
            details=dataset_details(road, look.of.layout),
            versions=library_versions("clip-retrieval", "torch", "numpy"),
        )
        made = run.manifest_of(output)
        if done and done.digest == made.digest and newest and newest.identity == run.identity:
            return StageResult(done, "done")
        log.info("verify: %d samples in %d shards hold", look.num_checked, len(made.details["shards"]))
        return run.publish(output)


def damaged(road: StageManifests, lake: Lake) -> bool:
    return any(manifests.missing_files(lake, manifest.files) for manifest in road.values())


def dataset_details(road: StageManifests, layout: KeyLayout) -> dict[str, Any]:
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
            **{kind: listed("reorder", f"reordered/{clip}/{kind}/{kind}_{name}.npy") for kind in EMBEDDING_KINDS},
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
    road: StageManifests,
    recipe: Recipe,
    lake: Lake,
    options: VerifyOptions,
    *,
    runner: JobRunner | None = None,
    progress: Progress = SILENT,
) -> CheckContext:
    """Look at everything and collect what is wrong. Raises only what makes looking impossible."""
    runner = runner or ThreadRunner()
    look = CheckContext(Dataset.of(road, lake, deep=options.deep), lake)
    shards = road["shard"].details["shards"]
    progress.begin(STAGE, len(shards), "shards")
    hints = {kind: another_layout(look, road["shard"], kind) for kind in EMBEDDING_KINDS}
    check_files(look, road, hints)
    check_counts(look, road)
    # The curated table of an imported dataset was made from its shards: it could say nothing else.
    planned = recipe.source.imported is None
    pages, samples = PageSplits(look), SampleJoints(look, road["curate"]) if planned else None
    wanted = options.reembed if options.reembed is not None or options.deep else recipe.verify.reembed
    dead = _by_shard(look.of.layout, road["shard"].details["tombstones"])
    drawn: list[Drawn] = []
    readable: list[dict[str, Any]] = []
    num_problems = len(look.problems)
    jobs = _jobs(look, road, dead, hints, wanted, planned=planned)
    for listed, seen in zip(shards, runner.map(look_at, jobs), strict=True):
        name = look.of.layout.shard_name(listed["number"])
        look.problems += seen.problems
        look.num_checked += seen.num_checked
        pages.add(name, listed["split"], seen)
        if samples:
            samples.add(name, seen)
        readable += [listed] if seen.readable else []
        if wanted is not None:
            drawn = heapq.nsmallest(wanted, [*drawn, *seen.drawn])
        progress.advance()
    # Where a shard could not be read, or a row is wrong, what is missing from the whole is named already.
    if len(look.problems) == num_problems:
        if samples:
            samples.finish()
        check_near_duplicates(look, road["curate"])
    picture_jobs = _picture_jobs(look, readable, drawn, recipe, every=wanted is None)
    for problems in runner.map(check_pictures, picture_jobs):
        look.problems += problems
    return look


Drawn = tuple[bytes, str]
"""A lot and its key."""


def _by_shard(layout: KeyLayout, keys: list[str]) -> dict[int, frozenset[str]]:
    found: dict[int, set[str]] = {}
    for key in keys:
        found.setdefault(layout.split(key)[0], set()).add(key)
    return {number: frozenset(of_shard) for number, of_shard in found.items()}


def _jobs(
    look: CheckContext,
    road: StageManifests,
    dead: dict[int, frozenset[str]],
    hints: dict[str, str],
    num_drawn: int | None,
    *,
    planned: bool,
) -> Iterator[ShardJob]:
    lost = _by_shard(look.of.layout, road["embed"].details["lost"])
    missing = [problem.file for problem in look.problems if problem.file]
    seed = road["reorder"].digest
    for listed in road["shard"].details["shards"]:
        number, name = listed["number"], look.of.layout.shard_name(listed["number"])
        yield ShardJob(
            dataset=look.of,
            listed=listed,
            lost=lost.get(number, frozenset()),
            dead=dead.get(number, frozenset()),
            named=frozenset(file for file in missing if name in file),
            hints=hints,
            num_drawn=num_drawn,
            seed=seed,
            planned=planned,
        )


def _picture_jobs(
    look: CheckContext, shards: list[dict[str, Any]], drawn: list[Drawn], recipe: Recipe, *, every: bool
) -> Iterator[PictureJob]:
    chosen: list[tuple[dict[str, Any], frozenset[str] | None]]
    if every:
        chosen = [(listed, EVERY_KEY) for listed in shards]
    else:
        of_shard = _by_shard(look.of.layout, [key for _, key in drawn])
        chosen = [(listed, of_shard[listed["number"]]) for listed in shards if listed["number"] in of_shard]
    for start in range(0, len(chosen), SHARDS_A_JOB if every else max(1, len(chosen))):
        end = start + SHARDS_A_JOB if every else len(chosen)
        yield PictureJob(look.of, chosen[start:end], recipe.embed, recipe.verify.min_cosine)


def list_close_pairs(look: CheckContext, road: StageManifests, recipe: Recipe, runner: JobRunner) -> str | None:
    """Write down which pictures the CLIP finds nearly the same; gives the file, None where nothing was compared."""
    if not recipe.verify.close_cosine or (look.num_checked > MAX_FAST and not look.of.deep):
        return None
    numbers = [listed["number"] for listed in road["shard"].details["shards"]]
    dead = _by_shard(look.of.layout, road["shard"].details["tombstones"])
    found = find_close_pairs(look.of, numbers, dead, recipe.verify.close_cosine, runner)
    path = close_pairs_path(road["reorder"].digest)
    look.lake.write_bytes(path, to_csv(look, found.nearest))
    if found.num_pairs:
        log.info(
            "verify: %d pairs of pictures have a cosine of %g or more in this CLIP; the nearest are in %s",
            found.num_pairs,
            recipe.verify.close_cosine,
            look.lake.full(path),
            extra=TOLD,
        )
    return path
