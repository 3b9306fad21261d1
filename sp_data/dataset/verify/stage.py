"""Verify: check every joint of the dataset, so that a wrong pairing is a named error and not a worse model.

files      every file of every manifest exists and has its size (deep: its sha256)
counts     each stage took in as many samples as the one before let out
keys       tar = successful rows of the parquet = rows of the embeddings' metadata
rows       each reordered row is the embeddings' row of that key, bit for bit; zero where no picture is
numbers    dtype, width, unit length, no NaN
captions   the text in the shard is the text that was embedded, and it is not empty
samples    the live samples are the ones that curate kept: title, bytes, caption, split; the others have a tombstone
splits     a shard is of one split; no page and no pair of near-duplicates is in two
pictures   pictures and captions from the tars, embedded again, match their own rows (deep: all of them)

Each shard is checked by itself (shard_checks.py), so that other machines can do it; the dataset as a whole is
checked here (dataset_checks.py). Pictures that a CLIP finds alike are listed (close_pairs.py) for a person to look at:
they are no errors.
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
from sp_data.dataset.verify.shard_checks import ShardJob, check_shard
from sp_data.errors import VerifyFailed
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts
from sp_data.recipe import Recipe
from sp_data.runtime.jobs import JobRunner, ThreadRunner
from sp_data.runtime.progress import SHOWN, SILENT, Progress
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

log = logging.getLogger(__name__)

STAGE = "verify"
SHARDS_A_JOB = 16
"""How many shards are embedded again by one job, which loads the CLIP once, if all shards are."""


def verify(run: StageRun, *, options: VerifyOptions | None = None) -> StageResult:
    """Check every joint; publish the dataset manifest if all hold.

    Without `options`, a dataset that was verified before is not checked again if all its files have their sizes.

    Raises VerifyFailed with every problem found.
    """
    by_stage, lake, runner = dict(run.inputs), run.lake, run.runner or ThreadRunner()
    with lake.writer():
        done, newest = run.done(), run.newest()
        by_path = {
            manifests.manifest_path(manifest.stage, manifest.identity): manifest
            for manifest in (*by_stage.values(), done)
            if manifest
        }
        by_path |= {f"manifests/{STAGE}/latest.json": newest} if newest else {}
        edited = {path: manifest for path, manifest in by_path.items() if not manifest.is_as_made}
        if done and options is None and not edited and not damaged(by_stage, lake):
            return run.unchanged(done)
        context = inspect(by_stage, run.recipe, lake, options or VerifyOptions(), runner=runner, progress=run.progress)
        for path, manifest in edited.items():
            message = f"does not have its digest {manifest.digest[:12]}…: it was edited; delete it"
            context.add_problem("files", f"{message} and run {lake.command(manifest.stage)}", file=path)
        if context.problems:
            raise VerifyFailed(context.problems, context.num_checked)
        list_close_pairs(context, by_stage, run.recipe, runner)
        num_shards = len(by_stage["shard"].details["shards"])
        output = StageOutput(
            counts=Counts(in_=context.num_checked, out=context.num_checked),
            files=[],
            summary=f"checked {context.num_checked} samples in {num_shards} shards, no problem",
            details=dataset_details(by_stage, context.dataset.layout),
            versions=library_versions("clip-retrieval", "torch", "numpy"),
        )
        manifest = run.manifest_of(output)
        if done and done.digest == manifest.digest and newest and newest.identity == run.identity:
            return StageResult(done, "done")
        if not lake.is_writable:
            log.warning("verify: %s; %s cannot be written, so that this is not recorded", output.summary, lake.root)
            return StageResult(manifest, "done")
        return run.publish_manifest(manifest, output.summary)


def damaged(by_stage: StageManifests, lake: Lake) -> bool:
    return any(manifests.missing_files(lake, manifest.files) for manifest in by_stage.values())


def dataset_details(by_stage: StageManifests, layout: KeyLayout) -> dict[str, Any]:
    """What training reads: every shard with its files and their digests, the layout, the CLIP, the tombstones."""
    clip = by_stage["embed"].details["clip"]

    def file_entry(stage: str, path: str) -> dict[str, str]:
        return {"path": path, "sha256": by_stage[stage].file(path).sha256}

    shards = []
    for shard in by_stage["shard"].details["shards"]:
        name = layout.shard_name(shard["number"])
        files = {
            "tar": file_entry("shard", f"shards/{name}.tar"),
            "parquet": file_entry("shard", f"shards/{name}.parquet"),
            **{kind: file_entry("reorder", f"reordered/{clip}/{kind}/{kind}_{name}.npy") for kind in EMBEDDING_KINDS},
        }
        shards.append({**shard, **files})
    return {
        "layout": str(layout),
        "clip": clip,
        "clip_model": by_stage["embed"].details["clip_model"],
        "dim": by_stage["embed"].details["dim"],
        "dtype": by_stage["embed"].details["dtype"],
        "catalogue": by_stage["scrape"].digest,
        "tombstones": by_stage["shard"].details["tombstones"],
        "shards": shards,
    }


def inspect(
    by_stage: StageManifests,
    recipe: Recipe,
    lake: Lake,
    options: VerifyOptions,
    *,
    runner: JobRunner | None = None,
    progress: Progress = SILENT,
) -> CheckContext:
    """Check everything and collect the problems. Raises only what makes checking impossible."""
    runner = runner or ThreadRunner()
    context = CheckContext(Dataset.of(by_stage, lake, deep=options.deep), lake)
    shards = by_stage["shard"].details["shards"]
    progress.begin(STAGE, len(shards), "shards")
    hints = {kind: another_layout(context, by_stage["shard"], kind) for kind in EMBEDDING_KINDS}
    check_files(context, by_stage, hints)
    check_counts(context, by_stage)
    # The curated table of an imported dataset was made from its shards: they cannot differ.
    planned = recipe.source.imported is None
    pages, samples = PageSplits(context), SampleJoints(context, by_stage["curate"]) if planned else None
    wanted = options.reembed if options.reembed is not None or options.deep else recipe.verify.reembed
    tombstones = _by_shard(context.dataset.layout, by_stage["shard"].details["tombstones"])
    drawn: list[Drawn] = []
    readable: list[dict[str, Any]] = []
    num_problems = len(context.problems)
    jobs = _jobs(context, by_stage, tombstones, hints, wanted, planned=planned)
    for shard, findings in zip(shards, runner.map(check_shard, jobs), strict=True):
        name = context.dataset.layout.shard_name(shard["number"])
        context.problems += findings.problems
        context.num_checked += findings.num_checked
        pages.add(name, shard["split"], findings)
        if samples:
            samples.add(name, findings)
        readable += [shard] if findings.readable else []
        if wanted is not None:
            drawn = heapq.nsmallest(wanted, [*drawn, *findings.drawn])
        progress.advance()
    # After a problem in a shard these would only report its consequences.
    if len(context.problems) == num_problems:
        if samples:
            samples.finish()
        check_near_duplicates(context, by_stage["curate"])
    picture_jobs = _picture_jobs(context, readable, drawn, recipe, every=wanted is None)
    for problems in runner.map(check_pictures, picture_jobs):
        context.problems += problems
    return context


Drawn = tuple[bytes, str]
"""A draw and its key."""


def _by_shard(layout: KeyLayout, keys: list[str]) -> dict[int, frozenset[str]]:
    by_shard: dict[int, set[str]] = {}
    for key in keys:
        by_shard.setdefault(layout.split(key)[0], set()).add(key)
    return {number: frozenset(of_shard) for number, of_shard in by_shard.items()}


def _jobs(
    context: CheckContext,
    by_stage: StageManifests,
    tombstones: dict[int, frozenset[str]],
    hints: dict[str, str],
    num_drawn: int | None,
    *,
    planned: bool,
) -> Iterator[ShardJob]:
    lost = _by_shard(context.dataset.layout, by_stage["embed"].details["lost"])
    missing = [problem.file for problem in context.problems if problem.file]
    seed = by_stage["reorder"].digest
    for shard in by_stage["shard"].details["shards"]:
        number, name = shard["number"], context.dataset.layout.shard_name(shard["number"])
        yield ShardJob(
            dataset=context.dataset,
            shard=shard,
            lost=lost.get(number, frozenset()),
            tombstones=tombstones.get(number, frozenset()),
            known_missing=frozenset(file for file in missing if name in file),
            hints=hints,
            num_drawn=num_drawn,
            seed=seed,
            planned=planned,
        )


def _picture_jobs(
    context: CheckContext, shards: list[dict[str, Any]], drawn: list[Drawn], recipe: Recipe, *, every: bool
) -> Iterator[PictureJob]:
    chosen: list[tuple[dict[str, Any], frozenset[str] | None]]
    if every:
        chosen = [(shard, EVERY_KEY) for shard in shards]
    else:
        of_shard = _by_shard(context.dataset.layout, [key for _, key in drawn])
        chosen = [(shard, of_shard[shard["number"]]) for shard in shards if shard["number"] in of_shard]
    for start in range(0, len(chosen), SHARDS_A_JOB if every else max(1, len(chosen))):
        end = start + SHARDS_A_JOB if every else len(chosen)
        yield PictureJob(context.dataset, chosen[start:end], recipe.embed, recipe.verify.min_cosine)


def list_close_pairs(context: CheckContext, by_stage: StageManifests, recipe: Recipe, runner: JobRunner) -> str | None:
    """Write the list of pictures that the CLIP finds nearly the same; gives its path, None if nothing was compared."""
    if not recipe.verify.close_cosine or (context.num_checked > MAX_FAST and not context.dataset.deep):
        return None
    numbers = [shard["number"] for shard in by_stage["shard"].details["shards"]]
    tombstones = _by_shard(context.dataset.layout, by_stage["shard"].details["tombstones"])
    pairs = find_close_pairs(context.dataset, numbers, tombstones, recipe.verify.close_cosine, runner)
    path = close_pairs_path(by_stage["reorder"].digest)
    if not context.lake.is_writable:
        log.warning("verify: the list of alike pictures is left out: %s cannot be written", context.lake.root)
        return None
    context.lake.write_bytes(path, to_csv(context, pairs.nearest))
    if pairs.num_pairs:
        log.info(
            "verify: %d pairs of pictures have a cosine of %g or more in this CLIP; the nearest are in %s",
            pairs.num_pairs,
            recipe.verify.close_cosine,
            context.lake.full(path),
            extra=SHOWN,
        )
    return path
