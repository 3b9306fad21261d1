"""Forget: take pictures out of a dataset for good, and list the checkpoints that have seen them.

1. Write forgotten.json (wiki/forgotten.py): from here on no scrape fetches them, whatever becomes of the next steps.
   Reports that show them are removed just before.
2. Publish the newest catalogue again with their rows at status 'forgotten', without asking the wiki. No stage can make
   an imported catalogue again, so it is published with its curated tables and its shard manifest (forget_imported.py).
3. Remove their bytes from originals/, normalised/ (the folders of stages that have files of single pictures) and
   quarantine/.
4. Run the stages that had been done, as far as `verify`: the tombstones are in the dataset manifest at once.

Each step checks whether it was done, so the same command finishes what a kill interrupted. The bytes in tars that were
written before are removed by `compact` and `gc`.
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
from sp_data.dataset.curate.tables import read_dropped, read_kept
from sp_data.dataset.shards.find import FoundSample, find_samples
from sp_data.errors import CorruptFile, StageNotDone
from sp_data.generation.search_index import INDEXES
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, STAGES, Stage, as_far_as_before, run_stages
from sp_data.recipe import Recipe
from sp_data.runtime.progress import SILENT, Progress
from sp_data.training.seen import sightings
from sp_data.training.trained import WORDS, TrainedCheckpoint, checkpoint_folder
from sp_data.upkeep.titles import resolve_title
from sp_data.wiki import state
from sp_data.wiki.catalogue import catalogue_rows, read_catalogue
from sp_data.wiki.forgotten import Forgotten, read_forgotten, write_forgotten
from sp_data.wiki.publish import republish_catalogue
from sp_data.wiki.tombstones import read_tombstones

log = logging.getLogger(__name__)

PNGS_READ = 10_000
GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was forgotten, and which checkpoints have seen it."""

    titles: tuple[str, ...]
    """The files that were named, and every other file with the same bytes."""
    is_new: bool
    """False: all of them were forgotten already."""
    keys: tuple[str, ...]
    """Keys of their samples in the shards, former ones too; the bytes stay in the tars until these are compacted."""
    shards: tuple[int, ...]
    checkpoints: tuple[TrainedCheckpoint, ...]
    """Checkpoints that learnt from them, themselves or through the checkpoint that they started from."""
    checkpoints_unknown: tuple[TrainedCheckpoint, ...]
    """Checkpoints whose datasets have no manifest any more."""
    num_generated: int | None
    """Pictures in generated/ that these checkpoints made; None where there are too many to read."""
    stand_ins: dict[str, str]
    """Title -> why it had been dropped. It looks like a forgotten picture, and is kept now in its place."""
    stages: tuple[str, ...]
    """The stages that were run again."""
    stale: str
    """The first stage that was not up to date before, and so was not run; running it adds the tombstones."""

    def __str__(self) -> str:
        named = ", ".join(self.titles)
        return f"forgot {named}" if self.is_new else f"{named} was forgotten already"

    def lines(self) -> Iterator[str]:
        """The rest of the outcome, one fact a line."""
        if self.keys:
            shards = ", ".join(map(str, self.shards)) or "none"
            yield f"keys {', '.join(self.keys)}; bytes still in the tars of shards {shards}"
        for checkpoint in self.checkpoints:
            yield f"seen by {checkpoint}: {checkpoint.folder}"
        for checkpoint in self.checkpoints_unknown:
            yield f"perhaps seen by {checkpoint}, whose dataset has no manifest any more: {checkpoint.folder}"
        if self.num_generated is None or self.num_generated:
            count = f"more than {PNGS_READ:,}" if self.num_generated is None else f"{self.num_generated:,}"
            yield f"{count} pictures in {GENERATED}/ were made by these checkpoints"
        for title, reason in self.stand_ins.items():
            yield f"{title}, dropped before ({reason}), is kept instead; forget it too if it is the same picture"
        if self.stale:
            yield f"{self.stale} was not up to date and was not run; its next run adds the tombstones"

    def cure(self, recipe: Recipe, lake: Lake) -> str:
        """How to remove the bytes that are in written tars; empty if there are none."""
        if not self.shards:
            return ""
        if recipe.source.imported is not None:
            return (
                "imported tars are not rewritten: remove the pictures from the imported folder, remove the "
                "dataset, and run `sp-data import` again"
            )
        collect = lake.command("gc", "--keep 1 --delete")
        return f"to remove those bytes: {lake.command('compact')}, then {collect}"


def forget(names: Iterable[str], recipe: Recipe, lake: Lake, *, progress: Progress = SILENT) -> Outcome:
    """Forget these files. `names` are titles, or addresses of a list, or keys of an import.

    Raises UsageError for a file that was never in the dataset, StageNotDone if nothing was scraped yet.
    """
    with lake.writer():
        scraped = manifests.latest(lake, "scrape")
        if scraped is None:
            raise StageNotDone(f"dataset {lake.dataset!r} has no catalogue yet; run {lake.command('scrape')} first")
        forgotten_before = read_forgotten(lake)
        history = _History.of(lake, scraped)
        known = history.titles | forgotten_before.titles
        titles = [resolve_title(name, known, lake) for name in names]
        pairs = history.all_of(titles)
        forgotten = forgotten_before.joined(pairs, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        removed_titles = {title for title, _ in pairs} | set(titles)
        sha1s = {entry.sha1 for entry in forgotten.entries if entry.title in removed_titles and entry.sha1}
        ready = as_far_as_before(recipe, lake)
        stale = next((stage for stage in DATASET_STAGES if stage not in ready and manifests.latest(lake, stage)), "")
        drop_reasons = _dropped_for(lake, removed_titles)
        if forgotten != forgotten_before:
            _remove_reports(lake, removed_titles)
            write_forgotten(lake, forgotten)
        _republish(lake, forgotten)
        _remove_bytes(lake, sha1s)
        stages = run_stages(ready[1:], recipe, lake, progress)
        uses = _Uses.of(lake, removed_titles, sha1s)
        curated = manifests.latest(lake, "curate")
        kept_titles = _kept_titles(lake, curated, drop_reasons.keys()) if curated else set()
    if forgotten != forgotten_before:
        log.info("forgot %s", ", ".join(sorted(removed_titles)))
    return Outcome(
        titles=tuple(sorted(removed_titles)),
        is_new=forgotten != forgotten_before,
        keys=tuple(sorted({sample.key for sample in uses.samples})),
        shards=tuple(sorted({sample.shard for sample in uses.samples if sample.in_tar})),
        checkpoints=uses.checkpoints,
        checkpoints_unknown=uses.unknown,
        num_generated=_num_generated(lake, uses.checkpoints),
        stand_ins={title: reason for title, reason in drop_reasons.items() if title in kept_titles},
        stages=stages,
        stale=stale,
    )


@dataclass(frozen=True, slots=True)
class _History:
    """Every (title, sha1) that the dataset knows of: `now` in its newest catalogue, `ever` in any catalogue or
    among its tombstones."""

    now: frozenset[tuple[str, str]]
    ever: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, lake: Lake, scraped: Manifest) -> _History:
        now = frozenset(_pairs(read_catalogue(lake, scraped)))
        ever = set(now) | {(tombstone.title, tombstone.sha1) for tombstone in read_tombstones(lake, scraped)}
        for manifest in manifests.all_of(lake, "scrape"):
            # A damaged snapshot may know more; it cannot be read.
            if not manifests.missing_files(lake, manifest.files):
                ever.update(_pairs(read_catalogue(lake, manifest)))
        return cls(now, frozenset(ever))

    @property
    def titles(self) -> set[str]:
        return {title for title, _ in self.ever}

    def all_of(self, titles: list[str]) -> set[tuple[str, str]]:
        """The pairs of these titles, today's and former ones, and every other title that has the same bytes today.

        Bytes that a title had before, and that another title has today, belong to the other title.
        """
        wanted = set(titles)
        today = {sha1 for title, sha1 in self.now if title in wanted}
        others = {sha1 for title, sha1 in self.now if title not in wanted} - today
        own = {pair for pair in self.ever if pair[0] in wanted and pair[1] and pair[1] not in others}
        sha1s = {sha1 for _, sha1 in own}
        without_sha1 = wanted - {title for title, _ in own}
        return own | {pair for pair in self.now if pair[1] in sha1s} | {(title, "") for title in without_sha1}


def _pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(table["title"].to_pylist(), table["sha1"].to_pylist(), strict=True)


def _republish(lake: Lake, forgotten: Forgotten) -> None:
    newest = manifests.latest(lake, "scrape")
    if newest is None or newest.version != STAGES["scrape"].version:
        return  # The next scrape makes its rows anew in any case.
    if newest.recipe.get("imported") is not None:
        from sp_data.upkeep.forget_imported import republish_import

        republish_import(lake, newest, forgotten)
        return
    if newest.recipe.get("addresses"):
        from sp_data.wiki.scrape_addresses import without_forgotten
    else:
        from sp_data.wiki.rows import without_forgotten
    rows = list(catalogue_rows(read_catalogue(lake, newest)))
    rows_left = without_forgotten(rows, forgotten)
    if rows_left != rows:
        manifest = republish_catalogue(lake, newest, rows_left).manifest
        state.update_published(lake, newest.identity, manifest.identity)


def _remove_reports(lake: Lake, titles: set[str]) -> None:
    """Remove the reports that name these titles: a page holds small pictures. `sp-data report` makes it again."""
    # The titles as HTML, JSON and CSV write them.
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
    folders = [folder for name in DATASET_STAGES for folder in _folders_by_sha1(STAGES[name], lake)]
    for sha1 in sorted(sha1s):
        for folder in folders:
            for path in lake.list(f"{folder}/{sha1[:2]}"):
                if path.rsplit("/", 1)[1].startswith(f"{sha1}."):
                    lake.remove(path)
    # Made again by the next training that reads words, and by the next search.
    for folder in (WORDS, INDEXES):
        for path in lake.list(folder):
            lake.remove(path)
    for path in lake.list("quarantine"):
        # Its name has the sha1 that the wiki stated.
        if any(sha1 in path for sha1 in sha1s) or _sha1_of(lake.read_bytes(path)) in sha1s:
            lake.remove(path)


def _folders_by_sha1(stage: Stage, lake: Lake) -> list[str]:
    """Where a stage may have files of single pictures: its folders, and each folder right below one of them."""
    if stage.leaves_parts:
        return []
    subfolders = [path for folder in stage.folders for path in lake.subfolders(folder)]
    # Not those that are called by the first two digits of a sha1 themselves.
    return [*stage.folders, *(path for path in subfolders if len(path.rpartition("/")[2]) != 2)]


def _sha1_of(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _dropped_for(lake: Lake, titles: set[str]) -> dict[str, str]:
    """Title -> reason of each file that was dropped because it looks like one of these."""
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
class _Uses:
    """Where forgotten pictures are: their samples in the shards, and the checkpoints that learnt from them."""

    samples: list[FoundSample]
    checkpoints: tuple[TrainedCheckpoint, ...]
    unknown: tuple[TrainedCheckpoint, ...]

    @classmethod
    def of(cls, lake: Lake, titles: set[str], sha1s: set[str]) -> _Uses:
        """Their samples in the newest shard manifest's shards, and the checkpoints that learnt from one of them."""
        sharded = manifests.latest(lake, "shard")
        samples = list(find_samples(lake, sharded, titles, sha1s)) if sharded else []
        seen = sightings(lake, titles, sha1s)
        return cls(
            samples,
            tuple(sighting.checkpoint for sighting in seen if sighting.titles),
            tuple(sighting.checkpoint for sighting in seen if not sighting.titles),
        )


def _num_generated(lake: Lake, checkpoints: tuple[TrainedCheckpoint, ...]) -> int | None:
    """How many PNGs in generated/ say that one of these checkpoints made them."""
    paths = [path for path in lake.list(GENERATED) if path.endswith(".png")]
    if not checkpoints or not paths:
        return 0
    if len(paths) > PNGS_READ:
        return None
    makers = {checkpoint.folder for checkpoint in checkpoints}
    return sum(bool(_made_by(data) & makers) for data in lake.read_all(paths))


def _made_by(data: bytes) -> set[str]:
    """Folders of the checkpoints that a PNG names."""
    from sp_data.generation.picture import read_origin

    try:
        record = read_origin(data, "")
    except CorruptFile:
        return set()
    decoder = record["decoder"]
    # One of the first pictures has one record for the whole decoder.
    networks = [record.get("prior"), *(decoder if isinstance(decoder, list) else [decoder])]
    folders = set()
    # The record is a stranger's where the picture is.
    for network in filter(lambda one: isinstance(one, dict), networks):
        match network:
            case {"run": str(run), "step": int(step)}:
                folders.add(checkpoint_folder(run, step))
            case {"file": str(file)}:
                folders.add(file)
            case _:
                pass
    return folders
