"""A gallery of the pictures that a dataset's models draw: prompt, picture, and the nearest training picture.

Nearest by the embeddings of the train split; the generated picture is embedded by the same CLIP. So the gallery shows
which pictures were memorised, and from where.
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

from sp_data.canonical import digest_of, parse_json
from sp_data.dataset.embed.clip import Clip
from sp_data.dataset.loader.samples import Samples
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.models import load_models
from sp_data.generation.picture import read_origin
from sp_data.generation.search import DatasetIndex, Neighbour
from sp_data.lake import Lake
from sp_data.manifest import Frozen, Manifest
from sp_data.recipe import Recipe
from sp_data.training.trained import best_folders

log = logging.getLogger(__name__)

NUM_PICTURES = 24
VERSION = 2
"""Raised when a kept gallery has other fields."""


class Piece(Frozen):
    """One picture of the gallery."""

    picture: str
    """Path of the PNG in the lake."""
    made: dict[str, Any]
    """The origin that the PNG records."""
    nearest: Neighbour


def gallery(recipe: Recipe, lake: Lake, by_stage: dict[str, Manifest]) -> list[Piece]:
    """Pictures of the judge's prompts if it ran, else of captions that were not trained on.

    `by_stage`: stage -> manifest. The gallery is made once for these manifests, and kept beside the reports.
    """
    digests = {stage: by_stage[stage].digest for stage in ("verify", "prior", "decoder", "judge") if stage in by_stage}
    path = f"reports/gallery-{digest_of([VERSION, digests])[:16]}.json"
    if lake.exists(path):
        kept = _kept(lake, path)
        if kept is not None and all(lake.exists(piece.picture) for piece in kept):
            return kept
    models = load_models(recipe, lake, [*best_folders(by_stage["prior"]), *best_folders(by_stage["decoder"])])
    if "judge" in by_stage:
        paths = [verdict["picture"] for verdict in by_stage["judge"].details["verdicts"][:NUM_PICTURES]]
    else:
        paths = []
        # In one precision: equal weights have equal galleries.
        generator = ImageGenerator(models, "fp32")
        for made in generator.dream_seeds([(caption, 0) for caption in unseen_captions(by_stage["verify"], lake)]):
            paths.append(f"generated/{made.file_name}")
            lake.write_bytes(paths[-1], made.png())
    files = [lake.read_bytes(picture) for picture in paths]
    neighbours = nearest(_embed(models.clip, files), by_stage["verify"], lake)
    rows = zip(paths, files, neighbours, strict=True)
    pieces = [Piece(picture=picture, made=read_origin(data, picture), nearest=near) for picture, data, near in rows]
    lake.write_bytes(path, json.dumps([piece.model_dump(mode="json") for piece in pieces], indent=1).encode())
    return pieces


def unseen_captions(verified: Manifest, lake: Lake) -> list[str]:
    """Distinct captions of the test split, else of val, else of train."""
    for split in ("test", "val", "train"):
        with Samples(verified, lake, split) as samples:
            first_captions = (samples[index]["caption"] for index in range(min(len(samples), 4 * NUM_PICTURES)))
            if captions := list(dict.fromkeys(first_captions))[:NUM_PICTURES]:
                return captions
    return []


def _kept(lake: Lake, path: str) -> list[Piece] | None:
    """The gallery that was made before; None if it cannot be read."""
    try:
        return [Piece.model_validate(piece) for piece in parse_json(lake.read_bytes(path))]
    except (ValueError, TypeError):
        return None


def _embed(clip: Clip, files: Sequence[bytes]) -> npt.NDArray[np.float32]:
    pictures = [Image.open(io.BytesIO(data), formats=("PNG",)).convert("RGB") for data in files]
    return clip.embed(pictures, [""] * len(pictures))[0].astype(np.float32)


def nearest(embeddings: npt.NDArray[np.float32], verified: Manifest, lake: Lake) -> list[Neighbour]:
    """For each row of `embeddings` `(n, dim)`, unit length, the picture of the train split with the greatest cosine."""
    with DatasetIndex(verified, lake) as index:
        return [neighbours[0] for neighbours in index.nearest(embeddings, 1, "train")]
