"""Import shard after shard into the lake, then publish the manifests of the stages that were done elsewhere.

    shards/00007.tar            the original bytes
    shards/00007.parquet        img2dataset's rows in key order, with the columns that sp-data's stages read
    embeddings/<clip>/…         one partition a shard, as the embed stage writes them, with its parts

The rows of one shard are in memory at a time, and a digest of each picture that is held out.
"""

from __future__ import annotations

import logging
import mmap
import shutil
from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.arrays import map_array
from sp_data.canonical import digest_of, sha256_of
from sp_data.dataset.curate.decoding import Refused, check_header
from sp_data.dataset.curate.splits import SPLITS
from sp_data.dataset.curate.tables import DROPPED_SCHEMA, KEPT_SCHEMA
from sp_data.dataset.embed.folder import clip_folder, identity_fields, shard_identity
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.img2dataset import INPUT_SCHEMA
from sp_data.dataset.shards.members import tar_members
from sp_data.dataset.shards.tars import SUCCESS
from sp_data.exchange.imports.foreign_table import NUMBERS, TEXT
from sp_data.exchange.imports.img2dataset_folder import EmbeddedCaptions, ForeignShard, read_shard, with_columns
from sp_data.exchange.imports.rows import Row, catalogue_row, dropped_row, kept_row, shard_columns
from sp_data.keys import KeyLayout
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest, ShardPart
from sp_data.parquet import table_of
from sp_data.pipeline import STAGES
from sp_data.recipe import Recipe
from sp_data.stage import library_versions
from sp_data.wiki.catalogue import SCHEMA

log = logging.getLogger(__name__)

NO_CAPTION = "no-caption"
DUPLICATE = "duplicate"
Reasons = dict[str, tuple[str, str] | None]
"""Key of a picture -> curate's reason for dropping it, with a detail; None if it is kept."""
CATALOGUE, KEPT, DROPPED = "catalogue.parquet", "kept.parquet", "dropped.parquet"


@dataclass(slots=True)
class Tally:
    """Counts and entries of the manifests, summed over the shards."""

    num_rows: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    num_lost: int = 0
    num_strays: int = 0
    tombstones: list[str] = field(default_factory=list)
    shards: list[Row] = field(default_factory=list)
    files: list[FileEntry] = field(default_factory=list)
    parts: list[ShardPart] = field(default_factory=list)
    held_out: dict[str, str] = field(default_factory=dict)
    """Digest of a picture in val or test -> its split and key: it may not be in another split."""


def _rows(table: pa.Table) -> list[Row]:
    """The rows, with the columns that sp-data reads alone: those of other programs can hold anything."""
    known = {*TEXT, *NUMBERS, *INPUT_SCHEMA.names}
    rows: list[Row] = table.select([name for name in table.schema.names if name in known]).to_pylist()
    return rows


def unreadable_samples(tar: Path) -> dict[str, Refused]:
    """Key -> why what the tar holds as .jpg is no picture, or as .txt no caption; decoders see the headers only.

    Raises CorruptFile.
    """
    broken: dict[str, Refused] = {}
    with tar.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for member in tar_members(tar):
            key, _, extension = member.name.partition(".")
            if extension == "jpg":
                try:
                    check_header(data[member.offset : member.offset + member.size])
                except Refused as refusal:
                    broken[key] = refusal
            elif extension == "txt":
                try:
                    data[member.offset : member.offset + member.size].decode("utf-8")
                except UnicodeDecodeError:
                    broken.setdefault(key, Refused(NO_CAPTION, "its .txt is not UTF-8"))
    return broken


class Importer:
    """Imports shard after shard into the lake, then publishes the manifests."""

    def __init__(
        self, recipe: Recipe, lake: Lake, layout: KeyLayout, scratch: Path, captions: EmbeddedCaptions
    ) -> None:
        self.recipe, self.lake, self.layout, self.scratch, self.captions = recipe, lake, layout, scratch, captions
        self.tally = Tally()
        self.embed_fields = identity_fields(recipe)
        self.clip = clip_folder(self.embed_fields)

    def take(self, shard: ForeignShard, split: str) -> None:
        """Publish one shard with its embeddings. Raises CorruptFile."""
        tally = self.tally
        table = read_shard(shard, self.layout)
        tar = self._publish(shard.tar, f"shards/{shard.name}.tar")
        table = with_columns(table, shard_columns(_rows(table), split, tar.path), INPUT_SCHEMA)
        rows = _rows(table)
        broken = unreadable_samples(shard.tar)
        reasons = {row["key"]: self._reason(row, split, broken) for row in rows if row["status"] == SUCCESS}
        pq.write_table(table, self.scratch / "parquet")
        tally.files += [
            tar,
            self.lake.publish_if_new(self.scratch / "parquet", f"shards/{shard.name}.parquet"),
            self._publish(shard.stats, f"shards/{shard.name}_stats.json", timed=True),
        ]
        embedded = self._embed(shard, tar, reasons)
        self._write_rows(shard.number, rows, reasons, tar)
        tally.num_rows += len(rows)
        tally.failed.update(
            f"img2dataset: {row['error_message'] or row['status']}"[:80] for row in rows if row["key"] not in reasons
        )
        tally.dropped.update(reason for reason, _ in filter(None, reasons.values()))
        tally.tombstones += [key for key, reason in reasons.items() if reason]
        tally.splits[split] += sum(reason is None and key in embedded for key, reason in reasons.items())
        tally.shards.append(
            {"number": shard.number, "split": split, "num_rows": len(rows), "num_samples": len(reasons)}
        )
        log.info("import %s (%s): %d of %d pictures", shard.name, split, len(embedded), len(rows))

    def _reason(self, row: dict[str, Any], split: str, broken: dict[str, Refused]) -> tuple[str, str] | None:
        if refusal := broken.get(row["key"]):
            return refusal.reason, refusal.detail
        if not (row.get("caption") or "").strip():
            return NO_CAPTION, ""
        digest = str(row.get("sha256") or row.get("sha512") or row.get("md5") or row["url"])
        other = self.tally.held_out.get(digest)
        if other is not None and other.partition(" ")[0] != split:
            return DUPLICATE, f"of {other}"
        if split != "train":
            self.tally.held_out.setdefault(digest, f"{split} {row['key']}")
        return None

    def _publish(self, source: Path, path: str, *, timed: bool = False) -> FileEntry:
        """Publish a copy, never a link: the files' owner may change them."""
        if self.lake.size(path) == source.stat().st_size and not timed:
            entry = self.lake.entry(path)
            with source.open("rb") as stream:
                if sha256_of(stream) == entry.sha256:
                    return entry
        copy = self.scratch / "copy"
        shutil.copyfile(source, copy)
        return self.lake.publish(copy, path, timed=timed)

    def _embed(self, shard: ForeignShard, tar: FileEntry, reasons: Reasons) -> set[str]:
        """Publish the shard's embeddings as the embed stage would, and its part; gives the keys that have a row."""
        captions_by_key = self.captions.of_shard(shard.number)
        self.tally.num_strays += len(captions_by_key.keys() - reasons.keys())
        keys = sorted(
            key for key in captions_by_key.keys() & reasons.keys() if (reasons[key] or (DUPLICATE,))[0] == DUPLICATE
        )
        indices = np.array([self.layout.split(key)[1] for key in keys], dtype=np.int64)
        rows = {kind: self._sorted_rows(kind, shard.name, indices) for kind in EMBEDDING_KINDS}
        has_row = np.logical_and.reduce([of_kind.any(axis=1) for of_kind in rows.values()])
        keys = [key for key, is_embedded in zip(keys, has_row, strict=True) if is_embedded]
        entries = []
        for kind in EMBEDDING_KINDS:
            np.save(self.scratch / "rows.npy", rows[kind][has_row].astype(np.float16))
            path = f"embeddings/{self.clip}/{kind}/{kind}_{shard.name}.npy"
            entries.append(self.lake.publish_if_new(self.scratch / "rows.npy", path))
        table = pa.table({"image_path": pa.array(keys, pa.string()), "caption": [captions_by_key[key] for key in keys]})
        pq.write_table(table, self.scratch / "metadata")
        path = f"embeddings/{self.clip}/metadata/metadata_{shard.name}.parquet"
        entries.append(self.lake.publish_if_new(self.scratch / "metadata", path))
        lost = sorted(reasons.keys() - set(keys))
        self.tally.num_lost += len(lost)
        part = ShardPart(
            name=f"{self.clip}-{shard.name}",
            identity=shard_identity(self.embed_fields, tar.sha256),
            files=tuple(entries),
            details={"num_rows": len(keys), "lost": lost},
        )
        manifests.publish_part(self.lake, "embed", part)
        self.tally.parts.append(part)
        return set(keys)

    def _sorted_rows(self, kind: str, name: str, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        if not len(indices):  # perhaps a shard after the last embedded one, which has no file
            return np.zeros((0, self.recipe.embed.dim), np.float16)
        path = self.scratch / "reordered" / kind / f"{kind}_{name}.npy"
        return cast("npt.NDArray[np.floating[Any]]", map_array(path)[indices])

    def _write_rows(self, number: int, rows: list[Row], reasons: Reasons, tar: FileEntry) -> None:
        """Write the shard's rows of the catalogue and of curate's two tables to scratch; `_join` joins them later."""
        folder = self.scratch / f"rows-{number}"
        folder.mkdir()
        pq.write_table(table_of((catalogue_row(row).model_dump_json() for row in rows), SCHEMA), folder / CATALOGUE)
        kept = [kept_row(row, tar) for row in rows if row["key"] in reasons and reasons[row["key"]] is None]
        dropped = [dropped_row(row, *reason) for row in rows if (reason := reasons.get(row["key"]))]
        pq.write_table(pa.Table.from_pylist(kept, schema=KEPT_SCHEMA), folder / KEPT)
        pq.write_table(pa.Table.from_pylist(dropped, schema=DROPPED_SCHEMA), folder / DROPPED)

    def publish(self) -> Recipe:
        """Publish the manifests of scrape, curate and shard; gives their recipe."""
        tally = self.tally
        tally.shards.sort(key=lambda shard: int(shard["number"]))
        digest = digest_of(
            [[entry.path, entry.sha256] for entry in sorted(tally.files, key=attrgetter("path")) if not entry.timed]
        )
        imported = self.recipe.source.imported
        assert imported is not None
        source = self.recipe.source.model_copy(update={"imported": imported.model_copy(update={"digest": digest})})
        recipe = self.recipe.model_copy(update={"source": source})
        num_samples = sum(int(shard["num_samples"]) for shard in tally.shards)
        num_kept = num_samples - tally.dropped.total()
        scraped = self._make(
            "scrape",
            source.identity_fields(),
            {"import": digest},
            Counts(in_=tally.num_rows, out=num_samples, dropped=dict(sorted(tally.failed.items()))),
            [self._join(CATALOGUE, f"catalogue/{digest[:16]}.parquet", SCHEMA)],
            {"wiki": source.place, "rows": tally.num_rows, "num_pictures_bytes": 0, "strays": tally.num_strays},
        )
        inputs = {"scrape": scraped.digest}
        stem = manifests.identity_of("curate", STAGES["curate"].version, recipe.curate.identity_fields(), inputs)[:16]
        curated = self._make(
            "curate",
            recipe.curate.identity_fields(),
            inputs,
            Counts(in_=num_samples, out=num_kept, dropped=dict(sorted(tally.dropped.items()))),
            [
                self._join(KEPT, f"curated/{stem}.parquet", KEPT_SCHEMA),
                self._join(DROPPED, f"curated/{stem}.dropped.parquet", DROPPED_SCHEMA),
            ],
            {"splits": {split: tally.splits[split] for split in SPLITS}, "num_pictures_bytes": 0},
        )
        self._make(
            "shard",
            recipe.shard.identity_fields(),
            {"curate": curated.digest},
            Counts(in_=num_kept, out=num_kept),
            tally.files,
            {
                "layout": str(self.layout),
                "samples_per_shard": max(int(shard["num_rows"]) for shard in tally.shards),
                "first_new": 0,
                "shards": tally.shards,
                "tombstones": sorted(tally.tombstones),
            },
        )
        return recipe

    def _make(
        self, stage: str, settings: Row, inputs: dict[str, str], counts: Counts, files: list[FileEntry], details: Row
    ) -> Manifest:
        manifest = Manifest.make(
            stage=stage,
            version=STAGES[stage].version,
            recipe=settings,
            inputs=inputs,
            counts=counts,
            files=files,
            details=details,
            versions=library_versions("pyarrow") | {"made by": "import"},
            previous=manifests.latest(self.lake, stage),
        )
        manifests.publish(self.lake, manifest)
        return manifest

    def _join(self, name: str, path: str, schema: pa.Schema) -> FileEntry:
        """Join the shards' tables in the order of their numbers, with one shard at a time in memory."""
        joined = self.scratch / name
        with pq.ParquetWriter(joined, schema, compression="zstd") as writer:
            for shard in self.tally.shards:
                writer.write_table(pq.read_table(self.scratch / f"rows-{shard['number']}" / name, schema=schema))
        return self.lake.publish_if_new(joined, path)
