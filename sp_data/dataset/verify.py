"""Verify: every joint of the dataset, so that a wrong pairing is an error with a name and never a worse model.

files      every file of every manifest is there with its size (deep: with its sha256)
counts     what one stage let out is what the next took in
keys       tar = successful rows of the parquet = rows of the embeddings' metadata
rows       each reordered row is the embeddings' row of that key, bit for bit; zero where no picture is
numbers    dtype, width, unit length, no NaN
captions   the text in the shard is the text that was embedded, and it is not empty
splits     a shard is of one split, and no page is in two
pictures   pictures and captions from the tars, embedded again, are their own rows' (deep: all of them)
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.clip import load_clip
from sp_data.dataset.embeddings import first_not_unit
from sp_data.dataset.partitions import KINDS
from sp_data.dataset.shards import read_rows
from sp_data.dataset.tidy import EXTENSIONS, SUCCESS, read_tar, tar_keys
from sp_data.errors import CorruptFile, LayoutError, VerifyFailed
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.parquet import read_table
from sp_data.progress import SILENT, Progress
from sp_data.recipe import Recipe
from sp_data.stage import VERSION_OF, Effort, StageResult, library_versions

log = logging.getLogger(__name__)

STAGE = "verify"
VERSION = VERSION_OF[STAGE]
ROAD = ("scrape", "curate", "shard", "embed", "reorder")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `file` and `key` are empty where it is about neither."""

    check: str
    file: str
    key: str
    message: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.file, f"key {self.key}" if self.key else "") if part)
        return f"verify: {self.check}: {where}: {self.message}" if where else f"verify: {self.check}: {self.message}"


@dataclass(frozen=True, slots=True)
class Rows:
    """One shard, as each of its files tells it."""

    number: int
    name: str
    split: str
    num_rows: int
    parquet: list[dict[str, Any]]
    """img2dataset's, one a planned row, in key order."""
    embedded: dict[str, tuple[int, str]]
    """Key -> (row in the partition, caption), from the embeddings' metadata."""


@dataclass(slots=True)
class Look:
    """What a verification sees: the manifests, the lake, and the problems so far."""

    road: dict[str, Manifest]
    lake: Lake
    deep: bool
    problems: list[Problem] = field(default_factory=list)
    num_checked: int = 0

    @property
    def layout(self) -> KeyLayout:
        return KeyLayout.parse(self.road["shard"].details["layout"])

    @property
    def clip(self) -> str:
        return str(self.road["embed"].details["clip"])

    def found(self, check: str, message: str, *, file: str = "", key: str = "") -> None:
        self.problems.append(Problem(check, file, key, message))

    def reordered_path(self, kind: str, name: str) -> str:
        return f"reordered/{self.clip}/{kind}/{kind}_{name}.npy"

    def embedded_path(self, kind: str, name: str) -> str:
        return f"embeddings/{self.clip}/{kind}/{kind}_{name}.npy"

    def metadata_path(self, name: str) -> str:
        return f"embeddings/{self.clip}/metadata/metadata_{name}.parquet"


def verify(
    road: dict[str, Manifest],
    recipe: Recipe,
    lake: Lake,
    *,
    effort: Effort | None = None,
    progress: Progress = SILENT,
) -> StageResult:
    """Check every joint; publish the dataset manifest if all hold.

    `road` maps each earlier stage to its manifest. Without an `effort`, what was verified before and is there with its
    sizes is not looked at again.

    Raises VerifyFailed with every problem found.
    """
    inputs = {stage: road[stage].digest for stage in ROAD}
    settings = recipe.verify.what()
    identity = manifests.identity_of(STAGE, VERSION, settings, inputs)
    with lake.writer():
        done = manifests.is_done(lake, STAGE, identity)
        if done and effort is None and not damaged(road, lake):
            manifests.make_latest(lake, done)
            return StageResult(done, "unchanged")
        look = inspect(road, recipe, lake, effort or Effort(), progress=progress)
        if look.problems:
            raise VerifyFailed(look.problems, look.num_checked)
        made = Manifest.make(
            stage=STAGE,
            version=VERSION,
            recipe=settings,
            inputs=inputs,
            counts=Counts(in_=look.num_checked, out=look.num_checked),
            files=[],
            details=dataset_details(road, look.layout),
            versions=library_versions("clip-retrieval", "torch", "numpy"),
            previous=manifests.latest(lake, STAGE),
        )
        if done and done.digest == made.digest:
            return StageResult(done, "done")
        manifests.publish(lake, made)
        log.info("verify: %d samples in %d shards hold", look.num_checked, len(made.details["shards"]))
        return StageResult(made, "done")


def damaged(road: dict[str, Manifest], lake: Lake) -> bool:
    return any(manifests.missing_files(lake, manifest.files) for manifest in road.values())


def dataset_details(road: dict[str, Manifest], layout: KeyLayout) -> dict[str, Any]:
    """What training takes: every shard with its files and their digests, the layout, the CLIP, the tombstones."""
    clip = road["embed"].details["clip"]

    def listed(stage: str, path: str) -> dict[str, str]:
        return {"path": path, "sha256": road[stage].file(path).sha256}

    shards = []
    for shard in road["shard"].details["shards"]:
        name = layout.shard_name(shard["number"])
        files = {
            "tar": listed("shard", f"shards/{name}.tar"),
            "parquet": listed("shard", f"shards/{name}.parquet"),
            **{kind: listed("reorder", f"reordered/{clip}/{kind}/{kind}_{name}.npy") for kind in KINDS},
        }
        shards.append({**shard, **files})
    return {
        "layout": str(layout),
        "clip": clip,
        "clip_model": road["embed"].details["clip_model"],
        "dim": road["embed"].details["dim"],
        "dtype": road["embed"].details["dtype"],
        "catalogue": road["scrape"].digest,
        "tombstones": road["shard"].details["tombstones"],
        "shards": shards,
    }


def inspect(
    road: dict[str, Manifest],
    recipe: Recipe,
    lake: Lake,
    effort: Effort,
    *,
    progress: Progress = SILENT,
) -> Look:
    """Look at everything and collect what is wrong. Raises only what makes looking impossible."""
    look = Look(road, lake, effort.deep)
    shards = road["shard"].details["shards"]
    progress.begin(STAGE, len(shards), "shards")
    check_files(look)
    check_counts(look)
    pages: dict[str, str] = {}
    candidates: list[tuple[Rows, str]] = []
    for listed in shards:
        with _as_problem(look, "files"):
            rows = _read_shard(look, listed)
            check_keys(look, rows)
            check_rows(look, rows)
            check_captions(look, rows)
            check_split(look, rows, pages)
            known = {row["key"] for row in rows.parquet}
            candidates += [(rows, key) for key in rows.embedded if key in known]
            look.num_checked += len(rows.embedded)
        progress.advance()
    wanted = effort.reembed
    if wanted is None:
        wanted = len(candidates) if effort.deep else recipe.verify.reembed
    # A seed from the data: the same dataset is looked at in the same places, another one in others.
    chosen = random.Random(road["reorder"].digest).sample(candidates, min(wanted, len(candidates)))
    if chosen:
        check_pictures(look, chosen, recipe)
    return look


@contextlib.contextmanager
def _as_problem(look: Look, check: str) -> Iterator[None]:
    """A file that cannot be read is a problem to list beside the others, not the end of the verification."""
    try:
        yield
    except (CorruptFile, LayoutError) as error:
        look.found(check, str(error))
    except FileNotFoundError as error:
        # `check_files` named it already, unless the manifest was edited to forget it.
        if not any(str(error.filename).endswith(problem.file) for problem in look.problems if problem.file):
            look.found(check, f"{error.filename} is missing")


def check_files(look: Look) -> None:
    hints = {kind: _another_layout(look, kind) for kind in KINDS}
    for manifest in look.road.values():
        for entry, what in manifests.missing_files(look.lake, manifest.files, deep=look.deep):
            hint = next((hints[kind] for kind in KINDS if f"reordered/{look.clip}/{kind}/" in entry.path), "")
            look.found("files", f"{what} ({manifest.stage}){hint}", file=entry.path)
    named = {entry.path for entry in look.road["reorder"].files}
    for kind in KINDS:
        for path in look.lake.list(f"reordered/{look.clip}/{kind}"):
            if path not in named:
                message = f"no manifest names it, and dalle2-pytorch's loaders would read it{hints[kind]}"
                look.found("files", message, file=path)


def check_counts(look: Look) -> None:
    for before, after in (("scrape", "curate"), ("curate", "shard"), ("shard", "embed"), ("embed", "reorder")):
        out, into = look.road[before].counts.out, look.road[after].counts.in_
        tombstoned = len(look.road["shard"].details["tombstones"]) if before == "shard" else 0
        if not out <= into <= out + tombstoned:
            look.found("counts", f"{before} let out {out:,}, {after} took in {into:,}")
        if look.road[after].inputs.get(before) != look.road[before].digest:
            look.found("counts", f"{after} was not made from this {before}; run `sp-data {after}` again")


def _read_shard(look: Look, listed: dict[str, Any]) -> Rows:
    name = look.layout.shard_name(listed["number"])
    embedded: dict[str, tuple[int, str]] = {}
    if look.lake.exists(look.metadata_path(name)):
        with look.lake.local(look.metadata_path(name)) as path:
            table = read_table(path, look.metadata_path(name), ["image_path", "caption"])
        for row, said in enumerate(table.to_pylist()):
            if said["image_path"] in embedded:
                look.found("keys", "is embedded twice", file=look.metadata_path(name), key=said["image_path"])
            embedded[said["image_path"]] = (row, said["caption"])
    rows = read_rows(look.lake, f"shards/{name}.parquet")
    return Rows(listed["number"], name, listed["split"], listed["num_rows"], rows, embedded)


def check_keys(look: Look, rows: Rows) -> None:
    """Tar, parquet and embeddings name the same keys, and those are of this shard."""
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
        reordered = _load(look, path)
        if reordered.shape != (rows.num_rows, dim) or reordered.dtype != dtype:
            look.found(
                "rows",
                f"holds {reordered.shape} {reordered.dtype}, expected ({rows.num_rows}, {dim}) {dtype}: one row for "
                f"each key of the shard{_another_layout(look, kind)}",
                file=path,
            )
            continue
        embedded = _load(look, look.embedded_path(kind, rows.name)) if rows.embedded else np.zeros((0, dim), dtype)
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


def _load(look: Look, path: str) -> npt.NDArray[np.floating[Any]]:
    with look.lake.local(path) as local:
        try:
            rows: npt.NDArray[np.floating[Any]] = np.load(local)
        except (ValueError, OSError, EOFError) as error:
            raise CorruptFile(f"{look.lake.full(path)} is no whole .npy file ({error})") from error
    return rows


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


def check_pictures(look: Look, chosen: list[tuple[Rows, str]], recipe: Recipe) -> None:
    """Embed pictures and captions from the tars again: cosine to their own row, which must be the nearest."""
    clip = load_clip(recipe.embed.clip_model, recipe.embed.dim, recipe.embed.precision)
    by_shard: dict[str, tuple[Rows, list[str]]] = {}
    for rows, key in chosen:
        by_shard.setdefault(rows.name, (rows, []))[1].append(key)
    for name, (rows, keys) in sorted(by_shard.items()):
        with _as_problem(look, "pictures"), look.lake.local(f"shards/{name}.tar") as path:
            wanted = set(keys)
            samples = []
            for key, parts in read_tar(path):
                if key in wanted and (picture := _decode(look, f"shards/{name}.tar", key, parts)):
                    samples.append((key, picture, parts["txt"].decode("utf-8", "replace")))
            size = recipe.embed.batch_size
            for start in range(0, len(samples), size):
                batch = samples[start : start + size]
                made = clip.embed([picture for _, picture, _ in batch], [caption for _, _, caption in batch])
                for kind, again in zip(KINDS, made, strict=True):
                    _compare(look, rows, kind, [key for key, _, _ in batch], again, recipe.verify.min_cosine)


def _decode(look: Look, path: str, key: str, parts: dict[str, bytes]) -> Image.Image | None:
    if not {"jpg", "txt"} <= parts.keys():
        return None  # `check_keys` named it.
    try:
        picture = Image.open(io.BytesIO(parts["jpg"]))
        picture.load()
    except OSError as error:
        look.found("pictures", f"cannot be decoded ({error})", file=path, key=key)
        return None
    return picture


def _compare(
    look: Look, rows: Rows, kind: str, keys: list[str], again: npt.NDArray[np.float16], min_cosine: float
) -> None:
    path = look.reordered_path(kind, rows.name)
    if not look.lake.exists(path):
        return
    stored = _load(look, path).astype(np.float32)
    if stored.shape[0] != rows.num_rows or stored.shape[1:] != again.shape[1:]:
        return
    cosines = again.astype(np.float32) @ stored.T
    what = "picture" if kind == "img_emb" else "caption"
    for key, row in zip(keys, cosines, strict=True):
        index = look.layout.split(key)[1]
        if not is_own(row, index, min_cosine):
            nearest = look.layout.key(rows.number, int(row.argmax()))
            message = f"its {what}, embedded again, has cosine {row[index]:.4f} with its row (at least {min_cosine}); "
            hint = f"the row of {nearest} is nearest ({row.max():.4f})" if nearest != key else "no row is nearer"
            look.found("pictures", message + hint, file=path, key=key)


def is_own(cosines: npt.NDArray[np.floating[Any]], index: int, min_cosine: float) -> bool:
    """Whether a picture that has these cosines with the rows of its shard owns row `index`.

    A neighbour that is nearer by more than rounding is a swap, however much alike the two pictures are.
    """
    return bool(cosines[index] >= min_cosine and cosines.max() - cosines[index] <= (1 - min_cosine) / 2)
