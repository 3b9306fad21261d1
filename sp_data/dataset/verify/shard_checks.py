"""The joints of one shard: what one of its files says against what the next one says.

A check is a function of what `look` sees; what is wrong goes into it, and the next check is made all the same. Whatever
one shard cannot know (pages in two splits, what curate kept) is gathered in `ShardSeen`.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.dataset.embed.stage import first_not_unit
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.img2dataset import CARRIED
from sp_data.dataset.shards.plan import sample_of
from sp_data.dataset.shards.tars import EXTENSIONS, SUCCESS, read_tar, tar_keys, tar_members
from sp_data.dataset.verify.context import CheckContext, Dataset, ShardRows, as_problem, load_rows, read_shard
from sp_data.errors import Problem


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to look at, and what the rest of the dataset says of it. Plain values, so that it can travel."""

    dataset: Dataset
    listed: dict[str, Any]
    """As the shard manifest lists it."""
    lost: frozenset[str]
    dead: frozenset[str]
    named: frozenset[str]
    """Files of it that were found missing already."""
    hints: Mapping[str, str]
    num_drawn: int | None
    """Pictures to draw lots for; None: as many as there are, and no lots."""
    seed: str
    planned: bool
    """Whether its rows were planned by our shard stage; an import's were not."""


@dataclass(slots=True)
class ShardSeen:
    """What a look at one shard found."""

    problems: list[Problem] = field(default_factory=list)
    num_checked: int = 0
    readable: bool = False
    pages: dict[str, list[str]] = field(default_factory=dict)
    """Page -> keys of what lives of it here."""
    live: dict[str, str] = field(default_factory=dict)
    """Key -> sample, of what lives here."""
    drawn: list[tuple[bytes, str]] = field(default_factory=list)
    """The least lots and their keys."""


def look_at(job: ShardJob) -> ShardSeen:
    """Look at one shard and collect what is wrong. Raises only what makes looking impossible."""
    look, seen = CheckContext.at(job.dataset), ShardSeen()
    with as_problem(look, "files", job.named):
        rows = read_shard(look, job.listed)
        check_keys(look, rows, job.lost, job.listed["num_samples"])
        check_rows(look, rows, job.named, job.hints)
        check_captions(look, rows)
        if look.of.deep:
            check_texts(look, rows, planned=job.planned)
        alive = [row for row in rows.parquet if row["key"] not in job.dead]
        check_split(look, rows, alive)
        for row in alive:
            if row["page"]:
                seen.pages.setdefault(row["page"], []).append(row["key"])
        if job.planned:
            seen.live = check_plan(look, rows, alive)
        seen.num_checked = len(rows.embedded)
        seen.readable = True
        if job.num_drawn is not None:
            seen.drawn = heapq.nsmallest(job.num_drawn, _lots(rows, job.seed))
    seen.problems = look.problems
    return seen


def _lots(rows: ShardRows, seed: str) -> list[tuple[bytes, str]]:
    """A lot for each picture, from the data: the same dataset is looked at in the same places, another in others."""
    known = {row["key"] for row in rows.parquet}
    return [(hashlib.sha256(f"{seed} {key}".encode()).digest(), key) for key in rows.embedded if key in known]


def check_keys(look: CheckContext, rows: ShardRows, lost: frozenset[str], num_samples: int) -> None:
    """Tar, parquet and embeddings name the same keys, and those are of this shard; `lost` have no embedding."""
    for key in rows.twice:
        look.found("keys", "is embedded twice", file=look.of.metadata_path(rows.name), key=key)
    parquet, tar_path = f"shards/{rows.name}.parquet", f"shards/{rows.name}.tar"
    planned = [look.of.layout.key(rows.number, index) for index in range(rows.num_rows)]
    if [row["key"] for row in rows.parquet] != planned:
        odd = sorted(set(planned) ^ {row["key"] for row in rows.parquet}) or [planned[0]]
        look.found("keys", f"expected one row for each of its {rows.num_rows} keys, in order", file=parquet, key=odd[0])
    succeeded = {row["key"] for row in rows.parquet if row["status"] == SUCCESS}
    with look.lake.local(tar_path) as path:
        in_tar, members = tar_keys(path), tar_members(path)
    for member, times in Counter(members).items():
        if times > 1:
            look.found("keys", f"holds {member} {times} times", file=tar_path, key=member.partition(".")[0])
    for key in sorted(succeeded ^ in_tar.keys()):
        lacking = parquet if key in in_tar else tar_path
        look.found("keys", "is in the tar or in the parquet, but not in both", file=lacking, key=key)
    for key, extensions in in_tar.items():
        if not extensions.issuperset(EXTENSIONS):
            missing = sorted(set(EXTENSIONS) - extensions)
            look.found("keys", f"lacks its .{missing[0]}; the loader would skip it", file=tar_path, key=key)
    for key in sorted((succeeded - lost) ^ rows.embedded.keys()):
        what = "has an embedding but no picture" if key in rows.embedded else "has a picture but no embedding"
        look.found("keys", what, file=look.of.metadata_path(rows.name), key=key)
    if len(in_tar) != num_samples:
        message = f"holds {len(in_tar):,} samples, the shard manifest says {num_samples:,}"
        look.found("counts", message, file=tar_path)


def check_rows(look: CheckContext, rows: ShardRows, named: frozenset[str], hints: Mapping[str, str]) -> None:
    """Each reordered row is the embeddings' row of its key; every other row is zero.

    `named` are files that were found missing already, `hints` what may have become of those of each kind.
    """
    dim, dtype = look.of.dim, np.dtype(look.of.dtype)
    index_of = {look.of.layout.key(rows.number, index): index for index in range(rows.num_rows)}
    # Keys of other shards were named by `check_keys`.
    keys = [key for key in rows.embedded if key in index_of]
    indices = np.array([index_of[key] for key in keys], dtype=np.int64)
    sources = np.array([rows.embedded[key][0] for key in keys], dtype=np.int64)
    for kind in EMBEDDING_KINDS:
        path = look.of.reordered_path(kind, rows.name)
        if not look.lake.exists(path):
            if path not in named:
                look.found("rows", f"is missing{hints[kind]}", file=path)
            continue
        reordered = load_rows(look, path)
        if reordered.shape != (rows.num_rows, dim) or reordered.dtype != dtype:
            look.found(
                "rows",
                f"holds {reordered.shape} {reordered.dtype}, expected ({rows.num_rows}, {dim}) {dtype}: one row for "
                f"each key of the shard{hints[kind]}",
                file=path,
            )
            continue
        path_embedded = look.of.embedded_path(kind, rows.name)
        embedded = load_rows(look, path_embedded) if rows.embedded else np.zeros((0, dim), dtype)
        if embedded.shape != (len(rows.embedded), dim) or embedded.dtype != dtype:
            look.found(
                "rows",
                f"holds {embedded.shape} {embedded.dtype}, its metadata asks for ({len(rows.embedded)}, {dim}) {dtype}",
                file=path_embedded,
            )
            continue
        if (wrong := first_not_unit(embedded)) is not None:
            key = next(key for key, (row, _) in rows.embedded.items() if row == wrong)
            look.found("numbers", "is not of unit length", file=path_embedded, key=key)
        for place in np.flatnonzero((reordered[indices] != embedded[sources]).any(axis=1)):
            owner = _owner_of(reordered[indices[place]], embedded, keys, sources)
            look.found("rows", f"does not hold the embedding of its picture; {owner}", file=path, key=keys[place])
        empty = np.ones(rows.num_rows, dtype=bool)
        empty[indices] = False
        for index in np.flatnonzero(empty & (reordered != 0).any(axis=1)):
            key = look.of.layout.key(rows.number, int(index))
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


def check_captions(look: CheckContext, rows: ShardRows) -> None:
    """The caption in the shard is the one that was embedded, and not empty."""
    of_key = {row["key"]: row["caption"] for row in rows.parquet}
    for key, (_, caption) in rows.embedded.items():
        if not (caption or "").strip():
            look.found("captions", "has an empty caption", file=look.of.metadata_path(rows.name), key=key)
        elif caption != of_key.get(key, caption):
            message = f"was embedded as {caption!r}, the shard says {of_key[key]!r}"
            look.found("captions", message, file=look.of.metadata_path(rows.name), key=key)


def check_texts(look: CheckContext, rows: ShardRows, *, planned: bool) -> None:
    """The tar's own .txt and .json say what the parquet says: caption, title, licence, page, ... The .json of somebody
    else's shards (not `planned` by ours) has other fields."""
    path, of_key = f"shards/{rows.name}.tar", {row["key"]: row for row in rows.parquet}
    with look.lake.local(path) as local:
        for key, parts in read_tar(local):
            if key not in of_key:
                continue  # `check_keys` named it.
            row, text = of_key[key], parts.get("txt", b"").decode("utf-8", "replace")
            if text != row["caption"]:
                message = f"the tar says {text!r}, the parquet {row['caption']!r}"
                look.found("captions", message, file=path, key=key)
            said = _json_of(parts.get("json", b""))
            for name in (*CARRIED, "url", "caption", "key") if planned else ():
                if said.get(name) != row[name]:
                    message = f"its .json says {name} {said.get(name)!r}, the parquet {row[name]!r}"
                    look.found("samples", message, file=path, key=key)


def _json_of(data: bytes) -> dict[str, Any]:
    """Empty for what is no JSON object: every field of it is wrong then."""
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def check_split(look: CheckContext, rows: ShardRows, alive: list[dict[str, Any]]) -> None:
    for row in alive:
        if row["split"] != rows.split:
            message = f"is of split {row['split']}, its shard of {rows.split}"
            look.found("splits", message, file=f"shards/{rows.name}.parquet", key=row["key"])


def check_plan(look: CheckContext, rows: ShardRows, alive: list[dict[str, Any]]) -> dict[str, str]:
    """A row is what it was planned to be: the digest that was planned is that of the row. Gives key -> sample."""
    live = {}
    for row in alive:
        if row["sample"] == sample_of(row):
            live[row["key"]] = row["sample"]
        else:
            message = "has another title, picture, caption or split than it was planned with"
            look.found("samples", message, file=f"shards/{rows.name}.parquet", key=row["key"])
    return live
