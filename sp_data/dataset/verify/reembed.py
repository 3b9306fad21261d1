"""Pictures and captions from the tars, embedded again: the check that sees what agrees with every file and is wrong."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data.dataset.embed.clip import load_clip
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.tars import read_tar
from sp_data.dataset.verify.context import CheckContext, Dataset, ShardRows, as_problem, load_rows, read_shard
from sp_data.errors import Problem
from sp_data.recipe import Embed

EVERY_KEY = None
"""In place of the keys of a shard: all of them."""
_one_model = threading.Lock()
"""A model takes every core by itself."""


@dataclass(frozen=True, slots=True)
class PictureJob:
    """Shards to embed again, with one loaded model. Plain values, so that it can travel."""

    dataset: Dataset
    chosen: list[tuple[dict[str, Any], frozenset[str] | None]]
    """Shards as the shard manifest lists them, each with the keys to look at, or EVERY_KEY."""
    embed: Embed
    min_cosine: float


def check_pictures(job: PictureJob) -> list[Problem]:
    """Embed pictures and captions from the tars again: cosine to their own row, which must be the nearest."""
    with _one_model:
        return _check(job)


def _check(job: PictureJob) -> list[Problem]:
    look, clip = CheckContext.at(job.dataset), load_clip(job.embed.clip_model, job.embed.dim, job.embed.precision)
    for listed, wanted in job.chosen:
        with as_problem(look, "pictures"):
            rows = read_shard(look, listed)
            tar = f"shards/{rows.name}.tar"
            known = {row["key"] for row in rows.parquet} & rows.embedded.keys()
            asked = known if wanted is EVERY_KEY else known & wanted
            samples = []
            with look.lake.local(tar) as path:
                for key, parts in read_tar(path):
                    if key in asked and (picture := _decode(look, tar, key, parts)):
                        samples.append((key, picture, parts["txt"].decode("utf-8", "replace")))
            size = job.embed.batch_size
            for start in range(0, len(samples), size):
                batch = samples[start : start + size]
                made = clip.embed([picture for _, picture, _ in batch], [caption for _, _, caption in batch])
                for kind, again in zip(EMBEDDING_KINDS, made, strict=True):
                    _compare(look, rows, kind, [key for key, _, _ in batch], again, job.min_cosine)
    return look.problems


def _decode(look: CheckContext, path: str, key: str, parts: dict[str, bytes]) -> Image.Image | None:
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
    look: CheckContext, rows: ShardRows, kind: str, keys: list[str], again: npt.NDArray[np.float16], min_cosine: float
) -> None:
    path = look.of.reordered_path(kind, rows.name)
    if not look.lake.exists(path):
        return
    stored = load_rows(look, path).astype(np.float32)
    if stored.shape[0] != rows.num_rows or stored.shape[1:] != again.shape[1:]:
        return
    cosines = again.astype(np.float32) @ stored.T
    what = "picture" if kind == "img_emb" else "caption"
    for key, row in zip(keys, cosines, strict=True):
        index = look.of.layout.split(key)[1]
        if not is_own(row, index, min_cosine):
            nearest = look.of.layout.key(rows.number, int(row.argmax()))
            message = f"its {what}, embedded again, has cosine {row[index]:.4f} with its row (at least {min_cosine}); "
            hint = f"the row of {nearest} is nearest ({row.max():.4f})" if nearest != key else "no row is nearer"
            look.found("pictures", message + hint, file=path, key=key)


def is_own(cosines: npt.NDArray[np.floating[Any]], index: int, min_cosine: float) -> bool:
    """Whether a picture that has these cosines with the rows of its shard owns row `index`.

    A neighbour that is nearer by more than rounding is a swap, however much alike the two pictures are.
    """
    return bool(cosines[index] >= min_cosine and cosines.max() - cosines[index] <= (1 - min_cosine) / 2)
