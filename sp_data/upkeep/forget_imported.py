"""Forgetting in an imported dataset: its first three manifests are published again, since no stage can make them.

Each is derived from the newest one of its stage, so running the same command again mends a kill between two of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.dataset.curate.tables import DROPPED_SCHEMA, KEPT_SCHEMA, read_dropped, read_kept
from sp_data.dataset.shards.find import find_samples
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest
from sp_data.parquet import DENSE
from sp_data.pipeline import STAGES
from sp_data.stage import library_versions
from sp_data.wiki.catalogue import OK, SCHEMA, read_catalogue
from sp_data.wiki.forgotten import FORGOTTEN, Forgotten


def republish_import(lake: Lake, scraped: Manifest, forgotten: Forgotten) -> None:
    """Publish the manifests of scrape, curate and shard without the forgotten files, where that is not done."""
    forgotten_digest = digest_of([[entry.title, entry.sha1] for entry in forgotten.entries])
    inputs = {"import": scraped.inputs["import"], "forgotten": forgotten_digest}
    if not _is_newest(lake, scraped, inputs):
        scraped = _scrape(lake, scraped, inputs, forgotten)
    curated = manifests.latest(lake, "curate")
    if curated is None:
        return
    if not _is_newest(lake, curated, {"scrape": scraped.digest}):
        curated = _curate(lake, curated, scraped, forgotten)
    sharded = manifests.latest(lake, "shard")
    if sharded is not None and not _is_newest(lake, sharded, {"curate": curated.digest}):
        _shard(lake, sharded, curated, forgotten)


def _is_newest(lake: Lake, newest: Manifest, inputs: dict[str, str]) -> bool:
    return newest.inputs == inputs and not manifests.missing_files(lake, newest.files)


def _scrape(lake: Lake, before: Manifest, inputs: dict[str, str], forgotten: Forgotten) -> Manifest:
    table = read_catalogue(lake, before)
    is_forgotten = _is_forgotten(table, forgotten)
    table = _with(table, "status", pc.if_else(is_forgotten, FORGOTTEN, table["status"]))
    table = _with(table, "original", pc.if_else(is_forgotten, pa.scalar(None, pa.string()), table["original"]))
    dropped = Counter(status for status in table["status"].to_pylist() if status != OK)
    identity = manifests.identity_of("scrape", STAGES["scrape"].version, before.recipe, inputs)
    return _publish(
        lake,
        before,
        inputs,
        Counts(in_=table.num_rows, out=table.num_rows - dropped.total(), dropped=dict(sorted(dropped.items()))),
        [_write(lake, table, SCHEMA, f"catalogue/{identity[:16]}.parquet")],
        before.details,
    )


def _curate(lake: Lake, before: Manifest, scraped: Manifest, forgotten: Forgotten) -> Manifest:
    inputs = {"scrape": scraped.digest}
    kept, dropped = read_kept(lake, before), read_dropped(lake, before)
    forgotten_rows = kept.filter(_is_forgotten(kept, forgotten))
    kept, dropped = (table.filter(pc.invert(_is_forgotten(table, forgotten))) for table in (kept, dropped))
    splits = Counter(forgotten_rows["split"].to_pylist())
    reasons = Counter(dropped["reason"].to_pylist())
    stem = f"curated/{manifests.identity_of('curate', STAGES['curate'].version, before.recipe, inputs)[:16]}"
    return _publish(
        lake,
        before,
        inputs,
        Counts(in_=scraped.counts.out, out=kept.num_rows, dropped=dict(sorted(reasons.items()))),
        [
            _write(lake, kept, KEPT_SCHEMA, f"{stem}.parquet"),
            _write(lake, dropped, DROPPED_SCHEMA, f"{stem}.dropped.parquet"),
        ],
        {
            **before.details,
            "splits": {name: max(0, count - splits[name]) for name, count in before.details["splits"].items()},
        },
    )


def _shard(lake: Lake, before: Manifest, curated: Manifest, forgotten: Forgotten) -> Manifest:
    dead = {row.key for row in find_samples(lake, before, forgotten.titles, forgotten.sha1s) if row.in_tar}
    return _publish(
        lake,
        before,
        {"curate": curated.digest},
        Counts(in_=curated.counts.out, out=curated.counts.out),
        list(before.files),
        {**before.details, "tombstones": sorted(dead | set(before.details["tombstones"]))},
    )


def _publish(
    lake: Lake,
    before: Manifest,
    inputs: dict[str, str],
    counts: Counts,
    files: list[FileEntry],
    details: dict[str, Any],
) -> Manifest:
    manifest = Manifest.make(
        stage=before.stage,
        version=STAGES[before.stage].version,
        recipe=before.recipe,
        inputs=inputs,
        counts=counts,
        files=files,
        details=details,
        versions=library_versions("pyarrow") | {"made by": "forget"},
        previous=before,
    )
    manifests.publish(lake, manifest)
    return manifest


def _is_forgotten(table: pa.Table, forgotten: Forgotten) -> pa.ChunkedArray:
    titles = pa.array(sorted(forgotten.titles), pa.string())
    sha1s = pa.array(sorted(forgotten.sha1s), pa.string())
    return pc.or_(pc.is_in(table["title"], titles), pc.is_in(table["sha1"], sha1s))


def _with(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _write(lake: Lake, table: pa.Table, schema: pa.Schema, path: str) -> FileEntry:
    with lake.scratch("forget") as folder:
        pq.write_table(table.cast(schema), folder / "table", **DENSE)
        return lake.publish_if_new(folder / "table", path)
