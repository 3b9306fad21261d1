"""Embed pictures and captions from the tars again: it finds what is wrong although all files agree."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data.dataset.curate.decoding import Refused, decode_rgb
from sp_data.dataset.embed.clip import load_clip
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.tars import read_tar
from sp_data.dataset.verify.context import CheckContext, Dataset, ShardRows, as_problem, load_rows, read_shard
from sp_data.errors import Problem
from sp_data.recipe import Embed

EVERY_KEY = None
"""In place of a shard's keys: all of them."""
_one_model = threading.Lock()
"""One model at a time: each uses every core."""


@dataclass(frozen=True, slots=True)
class PictureJob:
    """Shards to embed again, with one loaded model. Plain values, so that it can be sent to another machine."""

    dataset: Dataset
    shards: list[tuple[dict[str, Any], frozenset[str] | None]]
    """Entries of the shard manifest, each with the keys to embed again, or EVERY_KEY."""
    embed: Embed
    min_cosine: float


def check_pictures(job: PictureJob) -> list[Problem]:
    """Embed pictures and captions from the tars again and compare them with their rows.

    A picture's own row must have a cosine of at least `min_cosine` and be the nearest.
    """
    with _one_model:
        return _check(job)


def _check(job: PictureJob) -> list[Problem]:
    context, clip = CheckContext.at(job.dataset), load_clip(job.embed.clip_model, job.embed.dim, job.embed.precision)
    for shard, wanted_keys in job.shards:
        with as_problem(context, "pictures"):
            rows = read_shard(context, shard)
            tar = f"shards/{rows.name}.tar"
            known = {row["key"] for row in rows.parquet} & rows.embedded.keys()
            keys = known if wanted_keys is EVERY_KEY else known & wanted_keys
            samples = []
            with context.lake.local(tar) as path:
                for key, parts in read_tar(path):
                    if key in keys and (picture := _decode(context, tar, key, parts)):
                        samples.append((key, picture, parts["txt"].decode("utf-8", "replace")))
            size = job.embed.batch_size
            for start in range(0, len(samples), size):
                batch = samples[start : start + size]
                embeddings = clip.embed([picture for _, picture, _ in batch], [caption for _, _, caption in batch])
                for kind, new_rows in zip(EMBEDDING_KINDS, embeddings, strict=True):
                    _compare(context, rows, kind, [key for key, _, _ in batch], new_rows, job.min_cosine)
    return context.problems


def _decode(context: CheckContext, path: str, key: str, parts: dict[str, bytes]) -> Image.Image | None:
    if not {"jpg", "txt"} <= parts.keys():
        return None  # `check_keys` recorded it.
    try:
        return decode_rgb(parts["jpg"])
    except Refused as refusal:
        context.add_problem("pictures", f"cannot be decoded ({refusal})", file=path, key=key)
        return None


def _compare(
    context: CheckContext,
    rows: ShardRows,
    kind: str,
    keys: list[str],
    new_rows: npt.NDArray[np.float16],
    min_cosine: float,
) -> None:
    path = context.dataset.reordered_path(kind, rows.name)
    if not context.lake.exists(path):
        return
    stored = load_rows(context, path).astype(np.float32)
    if stored.shape[0] != rows.num_rows or stored.shape[1:] != new_rows.shape[1:]:
        return
    cosines = new_rows.astype(np.float32) @ stored.T
    noun = "picture" if kind == "img_emb" else "caption"
    for key, row in zip(keys, cosines, strict=True):
        index = context.dataset.layout.split(key)[1]
        if not is_own(row, index, min_cosine):
            nearest = context.dataset.layout.key(rows.number, int(row.argmax()))
            message = f"its {noun}, embedded again, has cosine {row[index]:.4f} with its row (at least {min_cosine}); "
            hint = f"the row of {nearest} is nearest ({row.max():.4f})" if nearest != key else "no row is nearer"
            context.add_problem("pictures", message + hint, file=path, key=key)


def is_own(cosines: npt.NDArray[np.floating[Any]], index: int, min_cosine: float) -> bool:
    """Whether row `index` belongs to a picture that has these cosines with the rows of its shard.

    If another row is nearer by more than rounding, the rows were swapped, however alike the two pictures are.
    """
    return bool(cosines[index] >= min_cosine and cosines.max() - cosines[index] <= (1 - min_cosine) / 2)
