"""The checks of a dataset as a whole; those of one shard are in shard_checks.py.

A check is a function of a CheckContext: it adds the problems it finds to the context, and the next check runs all the
same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sp_data import manifest as manifests
from sp_data.dataset.curate.duplicates import relatives
from sp_data.dataset.curate.tables import kept_blocks, read_kept
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.plan import MADE_OF, KeptSamples, from_hex
from sp_data.dataset.verify.context import CheckContext
from sp_data.dataset.verify.shard_checks import ShardFindings
from sp_data.keys import KeyLayout
from sp_data.manifest import Manifest

StageManifests = dict[str, Manifest]


def check_files(context: CheckContext, by_stage: StageManifests, hints: Mapping[str, str]) -> None:
    for manifest in by_stage.values():
        for entry, reason in manifests.missing_files(context.lake, manifest.files, deep=context.dataset.deep):
            hint = next(
                (hints[kind] for kind in EMBEDDING_KINDS if f"reordered/{context.dataset.clip}/{kind}/" in entry.path),
                "",
            )
            context.add_problem("files", f"{reason} ({manifest.stage}){hint}", file=entry.path)
    # Earlier snapshots too: the files that a compaction replaced belong to them until gc removes them.
    snapshots = [by_stage["reorder"], *manifests.all_of(context.lake, "reorder")]
    known = {entry.path for manifest in snapshots for entry in manifest.files}
    for kind in EMBEDDING_KINDS:
        for path in context.lake.list(f"reordered/{context.dataset.clip}/{kind}"):
            if path not in known:
                message = f"no manifest names it, and dalle2-pytorch's loaders would read it{hints[kind]}"
                message += "" if hints[kind] else f"; {context.lake.command('gc', '--delete')} removes it"
                context.add_problem("files", message, file=path)


def check_counts(context: CheckContext, by_stage: StageManifests) -> None:
    for before, after in (("scrape", "curate"), ("curate", "shard"), ("shard", "embed"), ("embed", "reorder")):
        out, taken = by_stage[before].counts.out, by_stage[after].counts.in_
        tombstoned = len(by_stage["shard"].details["tombstones"]) if before == "shard" else 0
        if not out <= taken <= out + tombstoned:
            context.add_problem("counts", f"{before} let out {out:,}, {after} took in {taken:,}")
        if by_stage[after].inputs.get(before) != by_stage[before].digest:
            context.add_problem(
                "counts", f"{after} was not made from this {before}; run {context.lake.command(after)} again"
            )


def another_layout(context: CheckContext, sharded: Manifest, kind: str) -> str:
    """A hint for the message if the files fit another layout, the classic wrong width; else empty."""
    layout = context.dataset.layout
    folder = f"reordered/{context.dataset.clip}/{kind}"
    shard_names = {
        path.rsplit("_", 1)[1].removesuffix(".npy") for path in context.lake.list(folder) if path.endswith(".npy")
    }
    keys = [layout.key(shard["number"], shard["num_rows"] - 1) for shard in sharded.details["shards"]]
    expected = {layout.shard_name(layout.split(key)[0]) for key in keys}
    unexpected = shard_names - expected
    for shard_width in range(1, layout.width):
        other = KeyLayout(shard_width, layout.width - shard_width)
        expected_by_other = {other.shard_name(other.split(key)[0]) for key in keys}
        if other != layout and unexpected and unexpected <= expected_by_other:
            return f"; the keys seem to have been cut as {other} instead of {layout}"
    return ""


class PageSplits:
    """Checks that no page is in two splits; it remembers in which split each page came first."""

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        self._split_of: dict[str, str] = {}

    def add(self, name: str, split: str, findings: ShardFindings) -> None:
        for page, keys in findings.pages.items():
            if (first := self._split_of.setdefault(page, split)) != split:
                for key in keys:
                    message = f"belongs to page {page!r}, which is in split {first} too"
                    self._context.add_problem("splits", message, file=f"shards/{name}.parquet", key=key)


class SampleJoints:
    """Checks that the live samples of the shards are those that curate kept: no other sample, and none left out."""

    def __init__(self, context: CheckContext, curated: Manifest) -> None:
        self._context, self._curated = context, curated
        self._kept = KeptSamples(kept_blocks(context.lake, curated, MADE_OF))
        self._number = np.full(len(self._kept), -1, dtype=np.int64)
        """By place: the key of the live sample, as a number; -1 if there is none yet."""
        self._not_kept: list[str] = []

    def add(self, name: str, findings: ShardFindings) -> None:
        places = self._kept.places(from_hex(findings.live.values()))
        for key, place in zip(findings.live, places.tolist(), strict=True):
            if place < 0:
                self._not_kept.append(key)
            elif (first_key := int(self._number[place])) >= 0:
                message = f"is the same sample as key {first_key:0{self._context.dataset.layout.width}d}"
                self._context.add_problem("samples", message, file=f"shards/{name}.parquet", key=key)
            else:
                self._number[place] = int(key) if key.isdecimal() else 0  # `check_keys` recorded it

    def finish(self) -> None:
        """Call this after the last shard."""
        for key in self._not_kept:
            self._context.add_problem(
                "samples", "is in a shard and was not kept by curate, but has no tombstone", key=key
            )
        absent = np.flatnonzero(self._number < 0)
        if absent.size:
            titles = read_kept(self._context.lake, self._curated, ["title"])["title"]
            for row in self._kept.rows(absent).tolist():
                self._context.add_problem("samples", f"{titles[row]} was kept by curate, but is alive in no shard")


def check_near_duplicates(context: CheckContext, curated: Manifest) -> None:
    """No two pictures of different splits are nearly the same, or a model would be tested on what it was trained on."""
    phashes: list[bytes] = []
    thumbs: list[bytes] = []
    # Rows of the table that have a perceptual hash: those of an import have none.
    rows: list[int] = []
    splits: list[str] = []
    start = 0
    for block in kept_blocks(context.lake, curated, ["split", "phash", "thumb"]):
        for row, (split, phash, thumb) in enumerate(zip(*(column.to_pylist() for column in block), strict=True), start):
            if phash is not None:
                phashes.append(phash)
                thumbs.append(thumb)
                rows.append(row)
                splits.append(split)
        start += len(block)
    earlier_relatives = relatives(phashes, thumbs, int(curated.recipe["near_duplicate_bits"]))
    leaks = [
        (picture, other)
        for picture, earlier in enumerate(earlier_relatives)
        for other in earlier
        if splits[other] != splits[picture]
    ]
    titles = read_kept(context.lake, curated, ["title"])["title"] if leaks else []
    for picture, other in leaks:
        message = (
            f"{titles[rows[picture]]} ({splits[picture]}) is a near-duplicate of {titles[rows[other]]} "
            f"({splits[other]}): expected both in one split"
        )
        context.add_problem("splits", message)
