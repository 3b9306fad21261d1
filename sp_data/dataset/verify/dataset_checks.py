"""The joints of a dataset that are about all of it; those of one shard are in shard_checks.py.

A check is a function of what `look` sees; what is wrong goes into it, and the next check is made all the same.
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
from sp_data.dataset.verify.shard_checks import ShardSeen
from sp_data.keys import KeyLayout
from sp_data.manifest import Manifest

StageManifests = dict[str, Manifest]


def check_files(look: CheckContext, road: StageManifests, hints: Mapping[str, str]) -> None:
    for manifest in road.values():
        for entry, what in manifests.missing_files(look.lake, manifest.files, deep=look.of.deep):
            hint = next(
                (hints[kind] for kind in EMBEDDING_KINDS if f"reordered/{look.of.clip}/{kind}/" in entry.path), ""
            )
            look.found("files", f"{what} ({manifest.stage}){hint}", file=entry.path)
    # Earlier snapshots too: what a compaction left behind is theirs until gc removes it.
    snapshots = [road["reorder"], *manifests.all_of(look.lake, "reorder")]
    named = {entry.path for manifest in snapshots for entry in manifest.files}
    for kind in EMBEDDING_KINDS:
        for path in look.lake.list(f"reordered/{look.of.clip}/{kind}"):
            if path not in named:
                message = f"no manifest names it, and dalle2-pytorch's loaders would read it{hints[kind]}"
                message += "" if hints[kind] else "; `sp-data gc --delete` removes it"
                look.found("files", message, file=path)


def check_counts(look: CheckContext, road: StageManifests) -> None:
    for before, after in (("scrape", "curate"), ("curate", "shard"), ("shard", "embed"), ("embed", "reorder")):
        out, into = road[before].counts.out, road[after].counts.in_
        tombstoned = len(road["shard"].details["tombstones"]) if before == "shard" else 0
        if not out <= into <= out + tombstoned:
            look.found("counts", f"{before} let out {out:,}, {after} took in {into:,}")
        if road[after].inputs.get(before) != road[before].digest:
            look.found("counts", f"{after} was not made from this {before}; run `sp-data {after}` again")


def another_layout(look: CheckContext, sharded: Manifest, kind: str) -> str:
    """If the files that are there are what another layout would give, say which: the classic wrong width."""
    layout = look.of.layout
    folder = f"reordered/{look.of.clip}/{kind}"
    there = {path.rsplit("_", 1)[1].removesuffix(".npy") for path in look.lake.list(folder) if path.endswith(".npy")}
    keys = [layout.key(shard["number"], shard["num_rows"] - 1) for shard in sharded.details["shards"]]
    expected = {layout.shard_name(layout.split(key)[0]) for key in keys}
    strangers = there - expected
    for shard_width in range(1, layout.width):
        other = KeyLayout(shard_width, layout.width - shard_width)
        named = {other.shard_name(other.split(key)[0]) for key in keys}
        if other != layout and strangers and strangers <= named:
            return f"; the keys seem to have been cut as {other} instead of {layout}"
    return ""


class PageSplits:
    """The split in which each page was seen first, over all shards: no page is in two."""

    def __init__(self, look: CheckContext) -> None:
        self._look = look
        self._split_of: dict[str, str] = {}

    def add(self, name: str, split: str, seen: ShardSeen) -> None:
        for page, keys in seen.pages.items():
            if (first := self._split_of.setdefault(page, split)) != split:
                for key in keys:
                    message = f"belongs to page {page!r}, which is in split {first} too"
                    self._look.found("splits", message, file=f"shards/{name}.parquet", key=key)


class SampleJoints:
    """What lives in the shards is what was kept: nothing that is gone without a tombstone, nothing left out."""

    def __init__(self, look: CheckContext, curated: Manifest) -> None:
        self._look, self._curated = look, curated
        self._kept = KeptSamples(kept_blocks(look.lake, curated, MADE_OF))
        self._number = np.full(len(self._kept), -1, dtype=np.int64)
        """By place: the key that lives, as a number."""
        self._strangers: list[str] = []

    def add(self, name: str, seen: ShardSeen) -> None:
        places = self._kept.places(from_hex(seen.live.values()))
        for key, place in zip(seen.live, places.tolist(), strict=True):
            if place < 0:
                self._strangers.append(key)
            elif (before := int(self._number[place])) >= 0:
                message = f"is the same sample as key {before:0{self._look.of.layout.width}d}"
                self._look.found("samples", message, file=f"shards/{name}.parquet", key=key)
            else:
                self._number[place] = int(key) if key.isdecimal() else 0  # `check_keys` named it

    def finish(self) -> None:
        """Once every shard was seen."""
        for key in self._strangers:
            self._look.found("samples", "is in a shard and was not kept by curate, but has no tombstone", key=key)
        absent = np.flatnonzero(self._number < 0)
        if absent.size:
            titles = read_kept(self._look.lake, self._curated, ["title"])["title"]
            for row in self._kept.rows(absent).tolist():
                self._look.found("samples", f"{titles[row]} was kept by curate, but is alive in no shard")


def check_near_duplicates(look: CheckContext, curated: Manifest) -> None:
    """No two pictures of different splits are nearly the same: a model would be tested on what it was shown."""
    phashes: list[bytes] = []
    thumbs: list[bytes] = []
    # Rows of the table: an import's have no looks.
    rows: list[int] = []
    splits: list[str] = []
    start = 0
    for block in kept_blocks(look.lake, curated, ["split", "phash", "thumb"]):
        for row, (split, phash, thumb) in enumerate(zip(*(column.to_pylist() for column in block), strict=True), start):
            if phash is not None:
                phashes.append(phash)
                thumbs.append(thumb)
                rows.append(row)
                splits.append(split)
        start += len(block)
    alike = relatives(phashes, thumbs, int(curated.recipe["near_duplicate_bits"]))
    leaks = [(one, elder) for one, elders in enumerate(alike) for elder in elders if splits[elder] != splits[one]]
    titles = read_kept(look.lake, curated, ["title"])["title"] if leaks else []
    for one, elder in leaks:
        message = (
            f"{titles[rows[one]]} ({splits[one]}) is a near-duplicate of {titles[rows[elder]]} ({splits[elder]}): "
            "expected both in one split"
        )
        look.found("splits", message)
