"""What became of each file of the wiki: its key in the shards, or the stage that dropped it and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_dropped, read_kept
from sp_data.dataset.shards.stage import read_rows
from sp_data.dataset.shards.tars import SUCCESS
from sp_data.errors import StageNotDone
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.upkeep.titles import resolve_title
from sp_data.wiki.catalogue import OK, catalogue_rows, read_catalogue
from sp_data.wiki.tombstones import Tombstone, read_tombstones


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one file. `stage` is the last one that it reached, `reason` why it was dropped there, or empty."""

    title: str
    stage: str
    reason: str
    key: str
    split: str
    caption: str

    def __str__(self) -> str:
        if self.reason:
            return f"{self.title}: dropped by {self.stage}: {self.reason}"
        place = f"key {self.key}, {self.split}" if self.key else f"{self.stage}d"
        return f"{self.title}: kept ({place}): {self.caption}"


def fates(lake: Lake) -> Iterator[Fate]:
    """The fate of every file in the newest catalogue, by title. Raises StageNotDone if nothing was scraped yet."""
    scraped = manifests.latest(lake, "scrape")
    if scraped is None:
        raise StageNotDone(f"dataset {lake.dataset!r} has no catalogue yet; run {lake.command('scrape')} first")
    curated, sharded = manifests.latest(lake, "curate"), manifests.latest(lake, "shard")
    dropped = {row["title"]: row for row in read_dropped(lake, curated).to_pylist()} if curated else {}
    kept = {row["title"]: row for row in read_kept(lake, curated).to_pylist()} if curated else {}
    keys = dict(_keys(lake, sharded)) if sharded else {}
    for row in catalogue_rows(read_catalogue(lake, scraped)):
        if row.status != OK:
            yield Fate(row.title, "scrape", row.status, "", "", row.caption)
        elif drop := dropped.get(row.title):
            reason = f"{drop['reason']}: {drop['detail']}" if drop["detail"] else drop["reason"]
            yield Fate(row.title, "curate", reason, "", "", row.caption)
        elif row.title in keys:
            key, error = keys[row.title]
            split = kept[row.title]["split"] if row.title in kept else ""
            yield Fate(row.title, "shard", error, key, split, row.caption)
        elif row.title in kept:
            yield Fate(row.title, "curate", "", "", kept[row.title]["split"], row.caption)
        else:
            yield Fate(row.title, "scrape", "", "", "", row.caption)


def fate_of(name: str, lake: Lake) -> Fate | Tombstone:
    """What became of one file; `name` is a title, an address of a list or a key of an import, as in `forget`.

    Raises UsageError if no catalogue has it, StageNotDone if nothing was scraped yet.
    """
    by_title: dict[str, Fate | Tombstone] = {tombstone.title: tombstone for tombstone in tombstones(lake)}
    by_title |= {fate.title: fate for fate in fates(lake)}
    return by_title[resolve_title(name, by_title.keys(), lake)]


def tombstones(lake: Lake) -> list[Tombstone]:
    """The files that an earlier catalogue had and the wiki no longer has, by title."""
    return read_tombstones(lake, manifests.latest(lake, "scrape"))


def _keys(lake: Lake, sharded: Manifest) -> Iterator[tuple[str, tuple[str, str]]]:
    """Title -> (key, why img2dataset failed on it)."""
    layout = KeyLayout.parse(sharded.details["layout"])
    dead = set(sharded.details["tombstones"])
    for shard in sharded.details["shards"]:
        for row in read_rows(lake, f"shards/{layout.shard_name(shard['number'])}.parquet"):
            if row["key"] not in dead:
                error = "" if row["status"] == SUCCESS else str(row["error_message"] or row["status"])
                yield row["title"], (row["key"], error)
