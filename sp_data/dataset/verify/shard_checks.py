"""The checks of one shard: each of its files against the next one.

A check is a function of a CheckContext: it adds the problems it finds to the context, and the next check runs all the
same. What one shard cannot decide (pages in two splits, what curate kept) is returned in `ShardFindings`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.canonical import parse_json
from sp_data.dataset.embed.stage import first_not_unit
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.img2dataset import CARRIED
from sp_data.dataset.shards.members import tar_members
from sp_data.dataset.shards.plan import sample_of
from sp_data.dataset.shards.tars import CURE, EXTENSIONS, SUCCESS, read_tar, tar_keys
from sp_data.dataset.verify.context import CheckContext, Dataset, ShardRows, as_problem, load_rows, read_shard
from sp_data.errors import Problem


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to check, and what the manifests say of it. Plain values, so that it can be sent to another machine."""

    dataset: Dataset
    shard: dict[str, Any]
    """The shard's entry in the shard manifest."""
    lost: frozenset[str]
    tombstones: frozenset[str]
    known_missing: frozenset[str]
    """Files of the shard that are recorded as missing already."""
    hints: Mapping[str, str]
    num_drawn: int | None
    """How many pictures to draw, to be embedded again; None: none, since all of them are embedded again."""
    seed: str
    planned: bool
    """Whether our shard stage planned the rows; those of an import were not planned."""


@dataclass(slots=True)
class ShardFindings:
    """What the checks of one shard found."""

    problems: list[Problem] = field(default_factory=list)
    num_checked: int = 0
    readable: bool = False
    pages: dict[str, list[str]] = field(default_factory=dict)
    """Page -> keys of its live samples in this shard."""
    live: dict[str, str] = field(default_factory=dict)
    """Key -> sample digest, of the live samples."""
    drawn: list[tuple[bytes, str]] = field(default_factory=list)
    """The lowest draws and their keys."""


def check_shard(job: ShardJob) -> ShardFindings:
    """Check one shard and collect its problems. Raises only what makes checking impossible."""
    context, findings = CheckContext.at(job.dataset), ShardFindings()
    with as_problem(context, "files", job.known_missing):
        rows = read_shard(context, job.shard)
        check_keys(context, rows, job.lost, job.shard["num_samples"])
        check_rows(context, rows, job.known_missing, job.hints)
        check_captions(context, rows)
        if context.dataset.deep:
            check_texts(context, rows, planned=job.planned)
        alive = [row for row in rows.parquet if row["key"] not in job.tombstones]
        check_split(context, rows, alive)
        for row in alive:
            if row["page"]:
                findings.pages.setdefault(row["page"], []).append(row["key"])
        if job.planned:
            findings.live = check_plan(context, rows, alive)
        findings.num_checked = len(rows.embedded)
        findings.readable = True
        if job.num_drawn is not None:
            findings.drawn = heapq.nsmallest(job.num_drawn, _draws(rows, job.seed))
    findings.problems = context.problems
    return findings


def _draws(rows: ShardRows, seed: str) -> list[tuple[bytes, str]]:
    """For each picture a hash of seed and key: those with the lowest are drawn, so a dataset always draws the same."""
    known = {row["key"] for row in rows.parquet}
    return [(hashlib.sha256(f"{seed} {key}".encode()).digest(), key) for key in rows.embedded if key in known]


def check_keys(context: CheckContext, rows: ShardRows, lost: frozenset[str], num_samples: int) -> None:
    """Tar, parquet and embeddings have the same keys, all of this shard; the keys in `lost` have no embedding."""
    for key in rows.repeated:
        context.add_problem("keys", "is embedded twice", file=context.dataset.metadata_path(rows.name), key=key)
    parquet, tar_path = f"shards/{rows.name}.parquet", f"shards/{rows.name}.tar"
    planned = [context.dataset.layout.key(rows.number, index) for index in range(rows.num_rows)]
    if [row["key"] for row in rows.parquet] != planned:
        unexpected = sorted(set(planned) ^ {row["key"] for row in rows.parquet}) or [planned[0]]
        context.add_problem(
            "keys", f"expected one row for each of its {rows.num_rows} keys, in order", file=parquet, key=unexpected[0]
        )
    succeeded = {row["key"] for row in rows.parquet if row["status"] == SUCCESS}
    with context.lake.local(tar_path) as path:
        in_tar, members = tar_keys(path), [member.name for member in tar_members(path, cure=CURE)]
    for member, times in Counter(members).items():
        if times > 1:
            context.add_problem("keys", f"holds {member} {times} times", file=tar_path, key=member.partition(".")[0])
    for key in sorted(succeeded ^ in_tar.keys()):
        file = parquet if key in in_tar else tar_path
        context.add_problem("keys", "is in the tar or in the parquet, but not in both", file=file, key=key)
    for key, extensions in in_tar.items():
        if not extensions.issuperset(EXTENSIONS):
            missing = sorted(set(EXTENSIONS) - extensions)
            context.add_problem("keys", f"lacks its .{missing[0]}; the loader would skip it", file=tar_path, key=key)
    for key in sorted((succeeded - lost) ^ rows.embedded.keys()):
        message = "has an embedding but no picture" if key in rows.embedded else "has a picture but no embedding"
        context.add_problem("keys", message, file=context.dataset.metadata_path(rows.name), key=key)
    if len(in_tar) != num_samples:
        message = f"holds {len(in_tar):,} samples, the shard manifest says {num_samples:,}"
        context.add_problem("counts", message, file=tar_path)


def check_rows(context: CheckContext, rows: ShardRows, known_missing: frozenset[str], hints: Mapping[str, str]) -> None:
    """Each reordered row is the embeddings' row of its key; every other row is zero.

    `known_missing` are files that are recorded as missing already; `hints`, for each kind of embedding, what may have
    become of its files.
    """
    dim, dtype = context.dataset.dim, np.dtype(context.dataset.dtype)
    index_of = {context.dataset.layout.key(rows.number, index): index for index in range(rows.num_rows)}
    # `check_keys` recorded keys of other shards.
    keys = [key for key in rows.embedded if key in index_of]
    indices = np.array([index_of[key] for key in keys], dtype=np.int64)
    sources = np.array([rows.embedded[key][0] for key in keys], dtype=np.int64)
    for kind in EMBEDDING_KINDS:
        path = context.dataset.reordered_path(kind, rows.name)
        if not context.lake.exists(path):
            if path not in known_missing:
                context.add_problem("rows", f"is missing{hints[kind]}", file=path)
            continue
        reordered = load_rows(context, path)
        if reordered.shape != (rows.num_rows, dim) or reordered.dtype != dtype:
            context.add_problem(
                "rows",
                f"holds {reordered.shape} {reordered.dtype}, expected ({rows.num_rows}, {dim}) {dtype}: one row for "
                f"each key of the shard{hints[kind]}",
                file=path,
            )
            continue
        path_embedded = context.dataset.embedded_path(kind, rows.name)
        embedded = load_rows(context, path_embedded) if rows.embedded else np.zeros((0, dim), dtype)
        if embedded.shape != (len(rows.embedded), dim) or embedded.dtype != dtype:
            context.add_problem(
                "rows",
                f"holds {embedded.shape} {embedded.dtype}, its metadata asks for ({len(rows.embedded)}, {dim}) {dtype}",
                file=path_embedded,
            )
            continue
        if (bad_row := first_not_unit(embedded)) is not None:
            key = next(key for key, (row, _) in rows.embedded.items() if row == bad_row)
            context.add_problem("numbers", "is not of unit length", file=path_embedded, key=key)
        for position in np.flatnonzero((reordered[indices] != embedded[sources]).any(axis=1)):
            owner = _owner_of(reordered[indices[position]], embedded, keys, sources)
            context.add_problem(
                "rows", f"does not hold the embedding of its picture; {owner}", file=path, key=keys[position]
            )
        empty = np.ones(rows.num_rows, dtype=bool)
        empty[indices] = False
        for index in np.flatnonzero(empty & (reordered != 0).any(axis=1)):
            key = context.dataset.layout.key(rows.number, int(index))
            context.add_problem("rows", "has a row, but no picture: expected zeros", file=path, key=key)


def _owner_of(
    row: npt.NDArray[np.floating[Any]],
    embedded: npt.NDArray[np.floating[Any]],
    keys: list[str],
    sources: npt.NDArray[np.int64],
) -> str:
    """Whose embedding a misplaced row is, if it is of this shard: it explains a shift or a swap."""
    if not row.any():
        return "it is zero"
    same = np.flatnonzero((embedded == row).all(axis=1))
    if not same.size:
        return "it is no embedding of this shard"
    return f"it is that of key {keys[int(np.flatnonzero(sources == same[0])[0])]}"


def check_captions(context: CheckContext, rows: ShardRows) -> None:
    """The caption in the shard is the one that was embedded, and not empty."""
    of_key = {row["key"]: row["caption"] for row in rows.parquet}
    for key, (_, caption) in rows.embedded.items():
        if not (caption or "").strip():
            context.add_problem(
                "captions", "has an empty caption", file=context.dataset.metadata_path(rows.name), key=key
            )
        elif caption != of_key.get(key, caption):
            message = f"was embedded as {caption!r}, the shard says {of_key[key]!r}"
            context.add_problem("captions", message, file=context.dataset.metadata_path(rows.name), key=key)


def check_texts(context: CheckContext, rows: ShardRows, *, planned: bool) -> None:
    """The tar's .txt and .json agree with the parquet: caption, title, licence, page, ...

    The .json of an import (not `planned` by our shard stage) has other fields and is not compared.
    """
    path, of_key = f"shards/{rows.name}.tar", {row["key"]: row for row in rows.parquet}
    with context.lake.local(path) as local:
        for key, parts in read_tar(local):
            if key not in of_key:
                continue  # `check_keys` recorded it.
            row, text = of_key[key], parts.get("txt", b"").decode("utf-8", "replace")
            if text != row["caption"]:
                message = f"the tar says {text!r}, the parquet {row['caption']!r}"
                context.add_problem("captions", message, file=path, key=key)
            fields = _json_of(parts.get("json", b""))
            for name in (*CARRIED, "url", "caption", "key") if planned else ():
                if fields.get(name) != row[name]:
                    message = f"its .json says {name} {fields.get(name)!r}, the parquet {row[name]!r}"
                    context.add_problem("samples", message, file=path, key=key)


def _json_of(data: bytes) -> dict[str, Any]:
    """The fields of a .json file; empty if it is no JSON object, so that every field differs."""
    try:
        fields = parse_json(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def check_split(context: CheckContext, rows: ShardRows, alive: list[dict[str, Any]]) -> None:
    for row in alive:
        if row["split"] != rows.split:
            message = f"is of split {row['split']}, its shard of {rows.split}"
            context.add_problem("splits", message, file=f"shards/{rows.name}.parquet", key=row["key"])


def check_plan(context: CheckContext, rows: ShardRows, alive: list[dict[str, Any]]) -> dict[str, str]:
    """Each row has the sample digest with which it was planned. Gives key -> sample digest."""
    live = {}
    for row in alive:
        if row["sample"] == sample_of(row):
            live[row["key"]] = row["sample"]
        else:
            message = "has another title, picture, caption or split than it was planned with"
            context.add_problem("samples", message, file=f"shards/{rows.name}.parquet", key=row["key"])
    return live
