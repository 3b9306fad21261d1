"""The joints of a dataset that need no model: what one file says against what the next one says.

A check is a function of what `look` sees; what is wrong goes into it, and the next check is made all the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data import manifest as manifests
from sp_data.dataset.curated import read_kept
from sp_data.dataset.duplicates import relatives
from sp_data.dataset.embeddings import first_not_unit
from sp_data.dataset.look import Look, Rows, load_rows
from sp_data.dataset.partitions import KINDS
from sp_data.dataset.shard_plan import sample_of
from sp_data.dataset.tidy import EXTENSIONS, SUCCESS, read_tar, tar_keys
from sp_data.keys import KeyLayout


def check_files(look: Look) -> None:
    hints = {kind: _another_layout(look, kind) for kind in KINDS}
    for manifest in look.road.values():
        for entry, what in manifests.missing_files(look.lake, manifest.files, deep=look.deep):
            hint = next((hints[kind] for kind in KINDS if f"reordered/{look.clip}/{kind}/" in entry.path), "")
            look.found("files", f"{what} ({manifest.stage}){hint}", file=entry.path)
    # Earlier snapshots too: what a compaction left behind is theirs until gc removes it.
    snapshots = [look.road["reorder"], *manifests.all_of(look.lake, "reorder")]
    named = {entry.path for manifest in snapshots for entry in manifest.files}
    for kind in KINDS:
        for path in look.lake.list(f"reordered/{look.clip}/{kind}"):
            if path not in named:
                message = f"no manifest names it, and dalle2-pytorch's loaders would read it{hints[kind]}"
                message += "" if hints[kind] else "; `sp-data gc --delete` removes it"
                look.found("files", message, file=path)


def check_counts(look: Look) -> None:
    for before, after in (("scrape", "curate"), ("curate", "shard"), ("shard", "embed"), ("embed", "reorder")):
        out, into = look.road[before].counts.out, look.road[after].counts.in_
        tombstoned = len(look.road["shard"].details["tombstones"]) if before == "shard" else 0
        if not out <= into <= out + tombstoned:
            look.found("counts", f"{before} let out {out:,}, {after} took in {into:,}")
        if look.road[after].inputs.get(before) != look.road[before].digest:
            look.found("counts", f"{after} was not made from this {before}; run `sp-data {after}` again")


def check_keys(look: Look, rows: Rows) -> None:
    """Tar, parquet and embeddings name the same keys, and those are of this shard."""
    for key in rows.twice:
        look.found("keys", "is embedded twice", file=look.metadata_path(rows.name), key=key)
    parquet, tar_path = f"shards/{rows.name}.parquet", f"shards/{rows.name}.tar"
    planned = [look.layout.key(rows.number, index) for index in range(rows.num_rows)]
    if [row["key"] for row in rows.parquet] != planned:
        odd = sorted(set(planned) ^ {row["key"] for row in rows.parquet}) or [planned[0]]
        look.found("keys", f"expected one row for each of its {rows.num_rows} keys, in order", file=parquet, key=odd[0])
    succeeded = {row["key"] for row in rows.parquet if row["status"] == SUCCESS}
    with look.lake.local(tar_path) as path:
        in_tar = tar_keys(path)
    for key in sorted(succeeded ^ in_tar.keys()):
        lacking = parquet if key in in_tar else tar_path
        look.found("keys", "is in the tar or in the parquet, but not in both", file=lacking, key=key)
    for key, extensions in in_tar.items():
        if not extensions.issuperset(EXTENSIONS):
            missing = sorted(set(EXTENSIONS) - extensions)
            look.found("keys", f"lacks its .{missing[0]}; the loader would skip it", file=tar_path, key=key)
    lost = set(look.road["embed"].details["lost"])
    for key in sorted((succeeded - lost) ^ rows.embedded.keys()):
        what = "has an embedding but no picture" if key in rows.embedded else "has a picture but no embedding"
        look.found("keys", what, file=look.metadata_path(rows.name), key=key)


def check_rows(look: Look, rows: Rows) -> None:
    """Each reordered row is the embeddings' row of its key; every other row is zero."""
    dim, dtype = look.road["embed"].details["dim"], np.dtype(look.road["embed"].details["dtype"])
    index_of = {look.layout.key(rows.number, index): index for index in range(rows.num_rows)}
    # Keys of other shards were named by `check_keys`.
    keys = [key for key in rows.embedded if key in index_of]
    indices = np.array([index_of[key] for key in keys], dtype=np.int64)
    sources = np.array([rows.embedded[key][0] for key in keys], dtype=np.int64)
    for kind in KINDS:
        path = look.reordered_path(kind, rows.name)
        if not look.lake.exists(path):
            if all(problem.file != path for problem in look.problems):
                look.found("rows", f"is missing{_another_layout(look, kind)}", file=path)
            continue
        reordered = load_rows(look, path)
        if reordered.shape != (rows.num_rows, dim) or reordered.dtype != dtype:
            look.found(
                "rows",
                f"holds {reordered.shape} {reordered.dtype}, expected ({rows.num_rows}, {dim}) {dtype}: one row for "
                f"each key of the shard{_another_layout(look, kind)}",
                file=path,
            )
            continue
        embedded = load_rows(look, look.embedded_path(kind, rows.name)) if rows.embedded else np.zeros((0, dim), dtype)
        if embedded.shape != (len(rows.embedded), dim) or embedded.dtype != dtype:
            look.found(
                "rows",
                f"holds {embedded.shape} {embedded.dtype}, its metadata asks for ({len(rows.embedded)}, {dim}) {dtype}",
                file=look.embedded_path(kind, rows.name),
            )
            continue
        if (wrong := first_not_unit(embedded)) is not None:
            key = next(key for key, (row, _) in rows.embedded.items() if row == wrong)
            look.found("numbers", "is not of unit length", file=look.embedded_path(kind, rows.name), key=key)
        for place in np.flatnonzero((reordered[indices] != embedded[sources]).any(axis=1)):
            owner = _owner_of(reordered[indices[place]], embedded, keys, sources)
            look.found("rows", f"does not hold the embedding of its picture; {owner}", file=path, key=keys[place])
        empty = np.ones(rows.num_rows, dtype=bool)
        empty[indices] = False
        for index in np.flatnonzero(empty & (reordered != 0).any(axis=1)):
            key = look.layout.key(rows.number, int(index))
            look.found("rows", "has a row, but no picture: expected zeros", file=path, key=key)


def _owner_of(
    row: npt.NDArray[np.floating[Any]],
    embedded: npt.NDArray[np.floating[Any]],
    keys: list[str],
    sources: npt.NDArray[np.int64],
) -> str:
    """Whose embedding a misplaced row is, if it is of the same shard: the sentence that explains a shift or a swap."""
    if not row.any():
        return "it is zero"
    same = np.flatnonzero((embedded == row).all(axis=1))
    if not same.size:
        return "it is no embedding of this shard"
    return f"it is that of key {keys[int(np.flatnonzero(sources == same[0])[0])]}"


def _another_layout(look: Look, kind: str) -> str:
    """If the files that are there are what another layout would give, say which: the classic wrong width."""
    folder = f"reordered/{look.clip}/{kind}"
    there = {path.rsplit("_", 1)[1].removesuffix(".npy") for path in look.lake.list(folder) if path.endswith(".npy")}
    keys = [look.layout.key(shard["number"], shard["num_rows"] - 1) for shard in look.road["shard"].details["shards"]]
    expected = {look.layout.shard_name(look.layout.split(key)[0]) for key in keys}
    strangers = there - expected
    for shard_width in range(1, look.layout.width):
        other = KeyLayout(shard_width, look.layout.width - shard_width)
        named = {other.shard_name(other.split(key)[0]) for key in keys}
        if other != look.layout and strangers and strangers <= named:
            return f"; the keys seem to have been cut as {other} instead of {look.layout}"
    return ""


def check_captions(look: Look, rows: Rows) -> None:
    """The caption in the shard is the one that was embedded; `deep` reads the tar's own .txt as well."""
    of_key = {row["key"]: row["caption"] for row in rows.parquet}
    for key, (_, caption) in rows.embedded.items():
        if not (caption or "").strip():
            look.found("captions", "has an empty caption", file=look.metadata_path(rows.name), key=key)
        elif caption != of_key.get(key, caption):
            message = f"was embedded as {caption!r}, the shard says {of_key[key]!r}"
            look.found("captions", message, file=look.metadata_path(rows.name), key=key)
    if look.deep:
        path = f"shards/{rows.name}.tar"
        with look.lake.local(path) as local:
            for key, parts in read_tar(local):
                said = parts.get("txt", b"").decode("utf-8", "replace")
                if key in of_key and said != of_key[key]:
                    look.found("captions", f"the tar says {said!r}, the parquet {of_key[key]!r}", file=path, key=key)


def check_split(look: Look, rows: Rows, pages: dict[str, str]) -> None:
    """`pages` collects, over all shards, the split in which each page was seen first."""
    dead = set(look.road["shard"].details["tombstones"])
    for row in rows.parquet:
        if row["key"] in dead:
            continue
        file = f"shards/{rows.name}.parquet"
        if row["split"] != rows.split:
            look.found("splits", f"is of split {row['split']}, its shard of {rows.split}", file=file, key=row["key"])
        if row["page"] and pages.setdefault(row["page"], rows.split) != rows.split:
            message = f"belongs to page {row['page']!r}, which is in split {pages[row['page']]} too"
            look.found("splits", message, file=file, key=row["key"])


def samples_of(look: Look, rows: Rows) -> dict[str, str]:
    """Sample -> key of what lives in a shard; names rows that are not what they were planned to be."""
    dead = set(look.road["shard"].details["tombstones"])
    live: dict[str, str] = {}
    for row in rows.parquet:
        if row["key"] in dead:
            continue
        if row["sample"] != sample_of(row):
            message = "has another title, picture, caption or split than it was planned with"
            look.found("samples", message, file=f"shards/{rows.name}.parquet", key=row["key"])
        elif row["sample"] in live:
            message = f"is {row['title']!r} once more, as key {live[row['sample']]} is"
            look.found("samples", message, file=f"shards/{rows.name}.parquet", key=row["key"])
        else:
            live[row["sample"]] = row["key"]
    return live


def check_samples(look: Look, live: dict[str, str]) -> None:
    """What lives in the shards is what was kept: nothing that is gone without a tombstone, nothing left out."""
    kept = {sample_of(row): row["title"] for row in read_kept(look.lake, look.road["curate"]).to_pylist()}
    for sample in sorted(live.keys() - kept.keys(), key=live.__getitem__):
        look.found("samples", "is in a shard and was not kept by curate, but has no tombstone", key=live[sample])
    for sample in sorted(kept.keys() - live.keys(), key=kept.__getitem__):
        look.found("samples", f"{kept[sample]} was kept by curate, but is alive in no shard")


def check_near_duplicates(look: Look) -> None:
    """No two pictures of different splits are nearly the same: a model would be tested on what it was shown."""
    bits = int(look.road["curate"].recipe["near_duplicate_bits"])
    columns = ["title", "split", "phash", "thumb"]
    rows = [row for row in read_kept(look.lake, look.road["curate"], columns).to_pylist() if row["phash"] is not None]
    alike = relatives([row["phash"] for row in rows], [row["thumb"] for row in rows], bits)
    for row, elders in zip(rows, alike, strict=True):
        for elder in elders:
            if rows[elder]["split"] != row["split"]:
                message = (
                    f"{row['title']} ({row['split']}) is a near-duplicate of {rows[elder]['title']} "
                    f"({rows[elder]['split']}): expected both in one split"
                )
                look.found("splits", message)
