"""A gallery of what a dataset's models draw: prompt, picture, and the training picture that lies nearest.

Nearest by the dataset's own embeddings of the training split: the generated picture goes through the same CLIP, so that
one sees what was learnt by heart and where it came from.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sp_data.canonical import digest_of
from sp_data.dataset.embed.clip import Clip
from sp_data.dataset.loader.samples import Samples
from sp_data.dataset.shards.stage import read_rows
from sp_data.generation.dream import Order, dream, read_made
from sp_data.generation.models import load_models
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Frozen, Manifest
from sp_data.recipe import Recipe

log = logging.getLogger(__name__)

NUM_PICTURES = 24


class Neighbour(Frozen):
    """The training picture nearest to a generated one."""

    key: str
    tar: str
    """Path in the lake of the shard it lies in."""
    cosine: float
    title: str
    page: str
    revision: int | None
    url: str


class Piece(Frozen):
    """One picture of the gallery."""

    picture: str
    """Path of the PNG in the lake."""
    made: dict[str, Any]
    nearest: Neighbour


def gallery(recipe: Recipe, lake: Lake, road: dict[str, Manifest]) -> list[Piece]:
    """Pictures of the judge's prompts where there was one, else of captions that training did not see.

    Made once for the manifests it shows, and kept beside the reports.
    """
    shown = {stage: road[stage].digest for stage in ("verify", "prior", "decoder", "judge") if stage in road}
    path = f"reports/gallery-{digest_of(shown)[:16]}.json"
    if lake.exists(path):
        kept = [Piece.model_validate(one) for one in json.loads(lake.read_bytes(path))]
        if all(lake.exists(piece.picture) for piece in kept):
            return kept
    models = load_models(recipe, lake, [str(road[kind].details["best"]["folder"]) for kind in ("prior", "decoder")])
    if "judge" in road:
        paths = [verdict["picture"] for verdict in road["judge"].details["verdicts"][:NUM_PICTURES]]
    else:
        paths = []
        for dreamt in dream(models, [Order(caption, 0) for caption in unseen_captions(road["verify"], lake)]):
            paths.append(f"generated/{dreamt.file_name}")
            lake.write_bytes(paths[-1], dreamt.png())
    files = [lake.read_bytes(one) for one in paths]
    neighbours = nearest(_embed(models.clip, files), road["verify"], lake)
    rows = zip(paths, files, neighbours, strict=True)
    pieces = [Piece(picture=one, made=read_made(data, one), nearest=near) for one, data, near in rows]
    lake.write_bytes(path, json.dumps([piece.model_dump(mode="json") for piece in pieces], indent=1).encode())
    return pieces


def unseen_captions(verified: Manifest, lake: Lake) -> list[str]:
    """Different captions of the test split, else of val, else of train."""
    for split in ("test", "val", "train"):
        with Samples(verified, lake, split) as samples:
            some = (samples[index]["caption"] for index in range(min(len(samples), 4 * NUM_PICTURES)))
            if found := list(dict.fromkeys(some))[:NUM_PICTURES]:
                return found
    return []


def _embed(clip: Clip, files: Sequence[bytes]) -> npt.NDArray[np.float32]:
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    return clip.embed(pictures, [""] * len(pictures))[0].astype(np.float32)


def nearest(embeddings: npt.NDArray[np.float32], verified: Manifest, lake: Lake) -> list[Neighbour]:
    """For each row `(n, dim)` of unit length, the picture of the train split with the greatest cosine."""
    layout = KeyLayout.parse(verified.details["layout"])
    dead = set(verified.details["tombstones"])
    best = np.full(len(embeddings), -2.0, np.float32)
    where: list[tuple[dict[str, Any], int]] = [({}, 0)] * len(embeddings)
    for listed in verified.details["shards"]:
        if listed["split"] != "train":
            continue
        with lake.local(listed["img_emb"]["path"]) as path:
            rows = np.load(path).astype(np.float32)
        alive = [index for index in range(len(rows)) if layout.key(listed["number"], index) not in dead]
        cosines = embeddings @ rows[alive].T
        for query, at in enumerate(cosines.argmax(axis=1)):
            if cosines[query, at] > best[query]:
                best[query], where[query] = cosines[query, at], (listed, alive[int(at)])
    return [
        _neighbour(listed, index, float(cosine), layout, lake)
        for (listed, index), cosine in zip(where, best, strict=True)
    ]


def _neighbour(listed: dict[str, Any], index: int, cosine: float, layout: KeyLayout, lake: Lake) -> Neighbour:
    row = read_rows(lake, listed["parquet"]["path"])[index]
    return Neighbour(
        key=layout.key(listed["number"], index),
        tar=listed["tar"]["path"],
        cosine=round(cosine, 4),
        title=row["title"],
        page=row["page"] or "",
        revision=row["revision"],
        url=row["url"],
    )
