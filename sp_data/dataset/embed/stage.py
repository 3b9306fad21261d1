"""Embeddings: one row for each picture and one for each caption, by clip-retrieval's reader, mapper and writer.

    embeddings/<clip>/img_emb/img_emb_00007.npy       (n, dim) float16, unit length
    embeddings/<clip>/text_emb/text_emb_00007.npy     (n, dim) float16, unit length
    embeddings/<clip>/metadata/metadata_00007.parquet row r names the key of row r in both

There is one partition per shard, with the shard's name. No batch crosses shards, so a row does not depend on which
shards run together. The model is loaded once for all shards, where clip-retrieval's own runner loads it for each
partition, and pictures are decoded in a thread while it computes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sp_data import manifest as manifests
from sp_data.arrays import map_array
from sp_data.dataset.embed.clip import Clip, load_clip, unwarned
from sp_data.dataset.embed.clip_retrieval import module
from sp_data.dataset.embed.distributed import SHARDS_A_RUN, embed_distributed
from sp_data.dataset.embed.folder import clip_folder, shard_identity
from sp_data.dataset.embed.precision import MIN_COSINE
from sp_data.dataset.shards.tars import tar_keys
from sp_data.errors import CorruptFile, StageError
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, ShardPart
from sp_data.parquet import read_table
from sp_data.recipe import Embed
from sp_data.runtime.prefetch import ahead
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

log = logging.getLogger(__name__)

STAGE = "embed"
NUM_PARTITIONS_NAMED = 99_999
"""clip-retrieval pads a partition's number to the digits of their count: five, as img2dataset pads its shards."""
MAX_NORM_ERROR = 5e-3
"""float16 keeps 11 bits, so a unit vector's length is off by less than this."""
BATCHES_AHEAD = 2
PICTURES_CHECKED = 8
"""How many pictures are embedded in float32 too, where the run computes in bfloat16."""


@dataclass(frozen=True, slots=True)
class Work:
    """A shard that has no embeddings yet."""

    name: str
    number: int
    identity: str
    num_samples: int

    @property
    def tar(self) -> str:
        return f"shards/{self.name}.tar"


ShardBatch = tuple[Work, dict[str, Any] | None]
"""A batch of a shard; None where the shard ends."""


def embed(run: StageRun) -> StageResult:
    """Embed every shard that has no embeddings of this CLIP yet.

    Raises StageError if the model cannot be loaded or has another width than the recipe says, CorruptFile if a shard
    is cut or clip-retrieval wrote rows that are not embeddings.
    """
    return run.once(lambda: _embed(run))


def _embed(run: StageRun) -> StageOutput:
    sharded, settings, lake, progress = run.inputs["shard"], run.recipe.embed, run.lake, run.progress
    folder = clip_folder(run.identity_fields)
    layout = KeyLayout.parse(sharded.details["layout"])
    shards = sharded.details["shards"]
    progress.begin(STAGE, sum(shard["num_samples"] for shard in shards), "pictures")
    parts: dict[str, ShardPart] = {}
    missing: list[Work] = []
    published = manifests.ShardParts(lake, STAGE)
    for shard in shards:
        name = layout.shard_name(shard["number"])
        identity = shard_identity(run.identity_fields, sharded.file(f"shards/{name}.tar").sha256)
        if part := published.find(f"{folder}-{name}", identity):
            parts[name] = part
            progress.advance(shard["num_samples"])
        else:
            missing.append(Work(name, shard["number"], identity, shard["num_samples"]))
    precision = "float32"
    if missing and settings.distributor != "here":
        for work, part in _embed_elsewhere(missing, folder, settings, lake):
            parts[work.name] = part
            progress.advance(work.num_samples)
    elif missing:
        with unwarned():
            clip = load_clip(settings.clip_model, settings.dim, settings.precision)
            clip, precision = check_precision(clip, missing[0], settings, lake)
            with clip.computing(), read_ahead(read_batches(missing, clip, settings, lake)) as batches:
                for work, pairs in itertools.groupby(batches, key=lambda pair: pair[0]):
                    shard_batches = (batch for _, batch in pairs)
                    parts[work.name] = _embed_shard(clip, work, shard_batches, folder, settings, lake)
                    progress.advance(work.num_samples)
    num_rows = sum(int(part.details["num_rows"]) for part in parts.values())
    num_lost = sum(len(part.details["lost"]) for part in parts.values())
    return StageOutput(
        counts=Counts(
            in_=num_rows + num_lost,
            out=num_rows,
            dropped={"clip-retrieval gave no row": num_lost} if num_lost else {},
        ),
        files=[entry for part in parts.values() for entry in part.files],
        summary=f"{num_rows} rows of {settings.dim} numbers for {len(parts)} shards",
        details={
            "clip": folder,
            "clip_model": settings.clip_model,
            "dim": settings.dim,
            "dtype": "float16",
            "lost": sorted(key for part in parts.values() for key in part.details["lost"]),
        },
        versions=library_versions("clip-retrieval", "torch", "transformers", "numpy")
        | {"precision": f"{precision} computed, float16 stored"},
    )


def check_precision(clip: Clip, first: Work, settings: Embed, lake: Lake) -> tuple[Clip, str]:
    """The model in the precision that suits it, and that precision in words, with the cosine that was measured."""
    if clip.precision == "fp32":
        return clip, "float32"
    size = min(settings.batch_size, PICTURES_CHECKED)
    _, batch = next(read_batches([first], clip, settings.model_copy(update={"batch_size": size}), lake))
    if batch is None:
        return clip, "bfloat16"
    cosine = clip.cosine_to_float32(batch, clip.mapper(batch), PICTURES_CHECKED)
    if cosine >= MIN_COSINE:
        return clip, f"bfloat16 (cosine to float32 at least {cosine:.6f} in {len(batch['text'])} samples)"
    log.warning(
        "embed: in bfloat16 this CLIP's rows have a cosine of only %.4f to those in float32; using float32", cosine
    )
    return load_clip(settings.clip_model, settings.dim, "fp32"), "float32"


def read_batches(missing: list[Work], clip: Clip, settings: Embed, lake: Lake) -> Iterator[ShardBatch]:
    """The batches of each shard, decoded and tokenized by clip-retrieval's reader, then None where the shard ends."""
    for work in missing:
        with lake.local(work.tar) as tar:
            reader = module("reader").WebdatasetReader(
                sampler=_take_all,
                preprocess=clip.preprocess,
                tokenizer=clip.tokenizer,
                input_dataset=[str(tar)],
                batch_size=settings.batch_size,
                num_prepro_workers=0,
                enable_metadata=True,
            )
            for batch in reader:
                yield work, batch
        yield work, None


@contextlib.contextmanager
def read_ahead(batches: Iterator[ShardBatch]) -> Iterator[Iterator[ShardBatch]]:
    """The same batches, read in a thread that computes alone.

    Preparing a picture is too little work to share: a second team of OpenMP threads would only keep the model's
    threads from the processors.
    """
    import torch

    def read_alone() -> Iterator[ShardBatch]:
        torch.set_num_threads(1)
        yield from batches

    num_threads = torch.get_num_threads()
    try:
        with contextlib.closing(ahead(read_alone(), BATCHES_AHEAD)) as batches_read:
            yield batches_read
    finally:
        # Threads that start later take over what that thread set.
        torch.set_num_threads(num_threads)


def _embed_shard(
    clip: Clip, work: Work, batches: Iterable[dict[str, Any] | None], folder: str, settings: Embed, lake: Lake
) -> ShardPart:
    with lake.scratch(STAGE) as scratch:
        write_partition(clip, batches, scratch, work.number)
        files = {
            "img_emb": scratch / "img_emb" / f"img_emb_{work.name}.npy",
            "text_emb": scratch / "text_emb" / f"text_emb_{work.name}.npy",
            "metadata": scratch / "metadata" / f"metadata_{work.name}.parquet",
        }
        return _publish(work, {kind: file for kind, file in files.items() if file.exists()}, folder, settings, lake)


def _embed_elsewhere(missing: list[Work], folder: str, settings: Embed, lake: Lake) -> Iterator[tuple[Work, ShardPart]]:
    """Embed by clip-retrieval's own command, `SHARDS_A_RUN` shards a call, each published before the next call."""
    for start in range(0, len(missing), SHARDS_A_RUN):
        works = missing[start : start + SHARDS_A_RUN]
        with lake.scratch(STAGE) as scratch:
            all_files = embed_distributed([work.tar for work in works], settings, lake, scratch)
            for work, files in zip(works, all_files, strict=True):
                yield work, _publish(work, files, folder, settings, lake)


def _publish(work: Work, files: dict[str, Path], folder: str, settings: Embed, lake: Lake) -> ShardPart:
    """Check one shard's files, by kind, and publish them with their part. There are none if no sample could be read."""
    keys = check_partition(files, settings.dim) if files else []
    with lake.local(work.tar) as tar:
        expected = {key for key, extensions in tar_keys(tar).items() if "jpg" in extensions}
    if unknown := set(keys) - expected:
        raise CorruptFile(f"embeddings of shard {work.name} name key {min(unknown)}, which {lake.full(work.tar)} lacks")
    entries = [
        lake.publish_if_new(file, f"embeddings/{folder}/{kind}/{kind}_{work.name}{file.suffix}")
        for kind, file in files.items()
    ]
    lost = sorted(expected - set(keys))
    part = ShardPart(
        name=f"{folder}-{work.name}",
        identity=work.identity,
        files=tuple(entries),
        details={"num_rows": len(keys), "lost": lost},
    )
    manifests.publish_part(lake, STAGE, part)
    log.info("embed %s: %d rows, %d lost", work.name, len(keys), len(lost))
    return part


def write_partition(clip: Clip, batches: Iterable[dict[str, Any] | None], output: Path, number: int) -> None:
    """Do what clip-retrieval's runner does for one partition, with a loaded model and batches that were read."""
    writer = module("writer").NumpyWriter(
        partition_id=number,
        output_folder=str(output),
        enable_text=True,
        enable_image=True,
        enable_metadata=True,
        output_partition_count=NUM_PARTITIONS_NAMED,
    )
    for batch in batches:
        if batch is not None:
            writer(clip.mapper(batch))
    writer.flush()


def _take_all(urls: list[str]) -> list[str]:
    return urls


def check_partition(files: dict[str, Path], dim: int) -> list[str]:
    """The keys of one partition, in row order, after a check that its three files agree.

    Raises CorruptFile, with the file and the row, if the numbers of rows differ, for another width or dtype, for NaN
    and for a length that is not 1; StageError for a key that comes twice.
    """
    keys: list[str] = read_table(files["metadata"], files["metadata"].name, ["image_path"])["image_path"].to_pylist()
    if len(set(keys)) != len(keys):
        duplicate = next(key for row, key in enumerate(keys) if key in keys[:row])
        raise StageError(f"{files['metadata'].name} names key {duplicate} twice: expected each picture once")
    for folder in ("img_emb", "text_emb"):
        rows = map_array(files[folder], files[folder].name)
        if rows.shape != (len(keys), dim) or rows.dtype != np.float16:
            raise CorruptFile(
                f"{files[folder].name} is {rows.shape} {rows.dtype}: expected ({len(keys)}, {dim}) float16, "
                "one row for each row of its metadata"
            )
        if (row := first_not_unit(rows)) is not None:
            raise CorruptFile(f"{files[folder].name} row {row} (key {keys[row]}) is not of unit length, or NaN")
    return keys


def first_not_unit(rows: Any) -> int | None:
    """Index of the first row of `(n, dim)` whose length is not 1 (NaN is not), None if all are."""
    norms = np.linalg.norm(np.asarray(rows, dtype=np.float32), axis=1)
    # NaN compares false, so ask which rows are of unit length rather than which are not.
    is_unit = np.abs(norms - 1) <= MAX_NORM_ERROR
    return None if is_unit.all() else int(np.argmin(is_unit))
