"""Forget: take pictures out of a dataset, for good, and say who has seen them.

1. forgotten.json (wiki/forgotten.py): from here on no scrape fetches them, whatever becomes of the rest of this.
2. The newest catalogue once more, with their rows at status 'forgotten', without asking the wiki. That of an import,
   which no stage can make again, together with its curated tables and its shard manifest (forget_imported.py).
3. Their bytes leave originals/, normalised/ and quarantine/. (Reports that show them went first.)
4. The stages that had been done, as far as `verify`: the tombstones are in the dataset manifest at once.

Each step finds out by itself whether it was done, so the same command again ends what a kill interrupted. The bytes in
tars that were written before go with `compact` and `gc`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import escape

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import COPIES_VERSION, read_dropped, read_kept
from sp_data.dataset.shards.find import Sighting, sightings
from sp_data.errors import CorruptFile, StageNotDone
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, STAGES, as_far_as_before, run_stages
from sp_data.recipe import Recipe
from sp_data.runtime.progress import SILENT, Progress
from sp_data.training.trained import Trained, lineage, trained
from sp_data.upkeep.titles import resolve_title
from sp_data.wiki import state as memory
from sp_data.wiki.catalogue import catalogue_rows, read_catalogue
from sp_data.wiki.forgotten import Forgotten, read_forgotten, write_forgotten
from sp_data.wiki.publish import republish_catalogue
from sp_data.wiki.tombstones import read_tombstones

log = logging.getLogger(__name__)

PNGS_READ = 10_000
GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was forgotten and who has seen it."""

    titles: tuple[str, ...]
    """Those asked for, and every other file of the same bytes."""
    is_new: bool
    """False: all of them were forgotten already."""
    keys: tuple[str, ...]
    """Of their samples in the shards, former ones too; the bytes stay in those tars until they are compacted."""
    shards: tuple[int, ...]
    checkpoints: tuple[Trained, ...]
    """That learnt from them, themselves or through the checkpoint that they began with."""
    checkpoints_unknown: tuple[Trained, ...]
    """Of whose datasets there is no manifest any more."""
    num_generated: int | None
    """Pictures in generated/ that these checkpoints made; None where there are too many to look at."""
    stand_ins: dict[str, str]
    """Title -> why it had been dropped: it looks like what was forgotten, and is kept now instead."""
    stages: tuple[str, ...]
    """Those that were run again."""
    stale: str
    """The first stage that was not up to date before, and so was not run; the tombstones come when it is."""

    def __str__(self) -> str:
        named = ", ".join(self.titles)
        return f"forgot {named}" if self.is_new else f"{named} was forgotten already"

    def lines(self) -> Iterator[str]:
        """What else there is to know, a line each."""
        if self.keys:
            shards = ", ".join(map(str, self.shards)) or "none"
            yield f"keys {', '.join(self.keys)}; bytes still in the tars of shards {shards}"
        for one in self.checkpoints:
            yield f"seen by {one}: {one.folder}"
        for one in self.checkpoints_unknown:
            yield f"perhaps seen by {one}, of whose dataset there is no manifest any more: {one.folder}"
        if self.num_generated is None or self.num_generated:
            many = f"more than {PNGS_READ:,}" if self.num_generated is None else f"{self.num_generated:,}"
            yield f"{many} pictures in {GENERATED}/ were made by these checkpoints"
        for title, why in self.stand_ins.items():
            yield f"{title} is kept instead, which was dropped before ({why}); forget it too if it is the same picture"
        if self.stale:
            yield f"{self.stale} was not up to date and was not run; the tombstones come when it is"

    def cure(self, recipe: Recipe) -> str:
        """What to do about bytes in tars that are written already; empty if there are none."""
        if not self.shards:
            return ""
        if recipe.source.imported is not None:
            return (
                "imported tars are not rewritten: take the pictures out of the folder that was imported, remove the "
                "dataset, and run `sp-data import` again"
            )
        return f"to remove those bytes: `sp-data compact {recipe.name}`, then `sp-data gc --keep 1 --delete`"


def forget(asked: Iterable[str], recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Outcome:
    """Raises UsageError for a title that was never in the dataset, StageNotDone if nothing was scraped yet."""
    with lake.writer():
        scraped = manifests.latest(lake, "scrape")
        if scraped is None:
            raise StageNotDone(f"dataset {lake.dataset!r} has no catalogue yet; run {lake.command('scrape')} first")
        before = read_forgotten(lake)
        history = _History.of(lake, scraped)
        known = history.titles | before.titles
        titles = [resolve_title(name, known, lake.dataset) for name in asked]
        pairs = history.all_of(titles)
        forgotten = before.joined(pairs, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        gone = {title for title, _ in pairs} | set(titles)
        sha1s = {entry.sha1 for entry in forgotten.entries if entry.title in gone and entry.sha1}
        ready = as_far_as_before(recipe, lake)
        stale = next((stage for stage in DATASET_STAGES if stage not in ready and manifests.latest(lake, stage)), "")
        looks_like = _dropped_for(lake, gone)
        if forgotten != before:
            _remove_reports(lake, gone)
            write_forgotten(lake, forgotten)
        _republish(recipe, lake, forgotten)
        _remove_bytes(lake, sha1s)
        stages = run_stages(ready[1:], recipe, lake, progress)
        seen = _Seen.by(lake, gone, sha1s)
        curated = manifests.latest(lake, "curate")
        kept = _kept_titles(lake, curated, looks_like.keys()) if curated else set()
    log.info("forgot %s", ", ".join(sorted(gone)))
    return Outcome(
        titles=tuple(sorted(gone)),
        is_new=forgotten != before,
        keys=tuple(sorted({one.key for one in seen.samples})),
        shards=tuple(sorted({one.shard for one in seen.samples if one.there})),
        checkpoints=seen.checkpoints,
        checkpoints_unknown=seen.unknown,
        num_generated=_num_generated(lake, seen.checkpoints),
        stand_ins={title: why for title, why in looks_like.items() if title in kept},
        stages=stages,
        stale=stale,
    )


@dataclass(frozen=True, slots=True)
class _History:
    """Every (title, sha1) that the dataset knows of: `now` in its newest catalogue, `ever` in any, or in a shard."""

    now: frozenset[tuple[str, str]]
    ever: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, lake: Lake, scraped: Manifest) -> _History:
        now = frozenset(_pairs(read_catalogue(lake, scraped)))
        ever = set(now) | {(one.title, one.sha1) for one in read_tombstones(lake, scraped)}
        for manifest in manifests.all_of(lake, "scrape"):
            # Another snapshot that is damaged may know more; nothing can be done about it.
            if not manifests.missing_files(lake, manifest.files):
                ever.update(_pairs(read_catalogue(lake, manifest)))
        return cls(now, frozenset(ever))

    @property
    def titles(self) -> set[str]:
        return {title for title, _ in self.ever}

    def all_of(self, titles: list[str]) -> set[tuple[str, str]]:
        """What these titles are and were, and every other title that has the same bytes today.

        Bytes that a title had before, and that another one has today, are the other one's.
        """
        wanted = set(titles)
        today = {sha1 for title, sha1 in self.now if title in wanted}
        others = {sha1 for title, sha1 in self.now if title not in wanted} - today
        own = {pair for pair in self.ever if pair[0] in wanted and pair[1] and pair[1] not in others}
        sha1s = {sha1 for _, sha1 in own}
        nameless = wanted - {title for title, _ in own}
        return own | {pair for pair in self.now if pair[1] in sha1s} | {(title, "") for title in nameless}


def _pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(table["title"].to_pylist(), table["sha1"].to_pylist(), strict=True)


def _republish(recipe: Recipe, lake: Lake, forgotten: Forgotten) -> None:
    newest = manifests.latest(lake, "scrape")
    if newest is None or newest.version != STAGES["scrape"].version:
        return  # the next scrape makes its rows anew in any case
    if newest.recipe.get("imported") is not None:
        from sp_data.upkeep.forget_imported import republish_import

        republish_import(lake, newest, forgotten)
        return
    if newest.recipe.get("addresses"):
        from sp_data.wiki.scrape_addresses import without_forgotten
    else:
        from sp_data.wiki.rows import without_forgotten
    rows = list(catalogue_rows(read_catalogue(lake, newest)))
    left = without_forgotten(rows, forgotten)
    if left != rows:
        made = republish_catalogue(lake, newest, left).manifest
        memory.follow(lake, newest.identity, made.identity)


def _remove_reports(lake: Lake, titles: set[str]) -> None:
    """Those that name them: a page holds small pictures. `sp-data report` makes it again."""
    # As HTML, JSON and CSV write them.
    forms = {
        form
        for title in titles
        for form in (title, str(escape(title)), json.dumps(title)[1:-1], title.replace('"', '""'))
    }
    for path in lake.list("reports"):
        data = lake.read_bytes(path)
        if any(form.encode() in data for form in forms):
            lake.remove(path)


def _remove_bytes(lake: Lake, sha1s: set[str]) -> None:
    copies = [f"normalised/{version}" for version in range(1, COPIES_VERSION + 1)]
    for sha1 in sorted(sha1s):
        for folder in ("originals", *copies):
            for path in lake.list(f"{folder}/{sha1[:2]}"):
                if path.rsplit("/", 1)[1].startswith(f"{sha1}."):
                    lake.remove(path)
    for path in lake.list("quarantine"):
        # Named by what the wiki said it was.
        if any(sha1 in path for sha1 in sha1s) or _sha1_of(lake.read_bytes(path)) in sha1s:
            lake.remove(path)


def _sha1_of(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _dropped_for(lake: Lake, titles: set[str]) -> dict[str, str]:
    """Files that were dropped because they look like one of these: title -> the reason."""
    curated = manifests.latest(lake, "curate")
    if curated is None or manifests.missing_files(lake, curated.files):
        return {}
    rows = read_dropped(lake, curated, ["title", "reason", "detail"]).to_pylist()
    return {
        row["title"]: f"{row['reason']} {row['detail']}"
        for row in rows
        if row["title"] not in titles and any(row["detail"].endswith(f" {title}") for title in titles)
    }


def _kept_titles(lake: Lake, curated: Manifest, titles: Iterable[str]) -> set[str]:
    table = read_kept(lake, curated, ["title"])
    return set(table.filter(pc.is_in(table["title"], pa.array(list(titles), pa.string())))["title"].to_pylist())


@dataclass(frozen=True, slots=True)
class _Seen:
    samples: list[Sighting]
    checkpoints: tuple[Trained, ...]
    unknown: tuple[Trained, ...]

    @classmethod
    def by(cls, lake: Lake, titles: set[str], sha1s: set[str]) -> _Seen:
        """Every sample in the shards of the newest shard manifest, and each checkpoint that learnt from one."""
        sharded = manifests.latest(lake, "shard")
        samples = list(sightings(lake, sharded, titles, sha1s)) if sharded else []
        datasets = {one.digest: one for one in manifests.all_of(lake, "verify")}
        learnt = {
            digest
            for digest, verified in datasets.items()
            if any(one.alive and one.split == "train" for one in sightings(lake, verified, titles, sha1s))
        }
        checkpoints = trained(lake)
        line = lineage(lake, checkpoints)
        saw = tuple(one for one in checkpoints if line[one.run] & learnt)
        unknown = tuple(one for one in checkpoints if one not in saw and line[one.run] - datasets.keys())
        return cls(samples, saw, unknown)


def _num_generated(lake: Lake, checkpoints: tuple[Trained, ...]) -> int | None:
    """How many PNGs in generated/ say that one of these checkpoints made them."""
    paths = [path for path in lake.list(GENERATED) if path.endswith(".png")]
    if not checkpoints or not paths:
        return 0
    if len(paths) > PNGS_READ:
        return None
    makers = {(one.run, one.step) for one in checkpoints}
    return sum(bool(_made_by(data) & makers) for data in lake.read_all(paths))


def _made_by(data: bytes) -> set[tuple[str, int]]:
    from sp_data.generation.dream import read_made

    try:
        made = read_made(data, "")
    except CorruptFile:
        return set()
    return {(made[kind]["run"], made[kind]["step"]) for kind in ("prior", "decoder") if kind in made}
