"""The finished decoder, measured: pictures drawn from held-out embeddings, beside the pictures that those are of.

A child process: `python -m sp_data.training.evaluation job.json`; it needs the CLIP, which a training does not.

    runs/decoder-unet2-93d1aa02/evaluation-4b1e9c02.json   {"figures": {"reconstruction": 0.94, …}, "verdicts": ["…"]}
"""

from __future__ import annotations

from sp_data.runtime.subprocesses import die_with_parent

if __name__ == "__main__":
    # Before the imports, which take seconds.
    die_with_parent()

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sp_data.canonical import digest_of
from sp_data.dataset.embed.clip import Clip, load_clip, quiet
from sp_data.dataset.loader.samples import Samples
from sp_data.errors import SpDataError
from sp_data.foreign_text import OneLineFormatter
from sp_data.lake import Lake
from sp_data.manifest import Frozen
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.decoder import draw, drawing_steps, resized, to_pictures
from sp_data.training.measures.decoder import decoder_measures
from sp_data.training.measures.fid import Unavailable, fid_and_kid, inception_weights, load_inception
from sp_data.training.models import build_decoder, choose_device
from sp_data.training.seeds import number_of, seed_all
from sp_data.training.switches import fused_attention, fused_norms
from sp_data.training.task import collate, tensor, to_device
from sp_data.training.words import WordEncoder
from sp_data.training.worker import ERROR, STEP, verified_dataset

log = logging.getLogger("sp_data.training")

MIN_SAMPLES = 4
"""Fewer pictures cannot be measured."""
BATCH = 16


class EvaluationJob(Frozen):
    """What the parent wants measured; the child reads it from a file."""

    recipe: Recipe
    lake: str
    dataset: str
    """Identity of the verified dataset's manifest."""
    checkpoints: tuple[str, ...]
    """Folders in the lake, one for each unet."""
    path: str
    """Where in the lake the figures go."""


def evaluation_path(run: str, digests: list[str], num_samples: int) -> str:
    """Where the figures of a decoder lie that has these weights."""
    return f"runs/{run}/evaluation-{digest_of([digests, num_samples])[:8]}.json"


def evaluate(job: EvaluationJob) -> dict[str, Any]:
    """Draw as many pictures as the recipe says and the val split has, and measure them."""
    lake, recipe = Lake(job.lake, job.recipe.name), job.recipe
    verified = verified_dataset(lake, job.dataset)
    records = [checkpoints.read(lake, f"{folder}/{checkpoints.RECORD}") for folder in job.checkpoints]
    with quiet():
        clip = load_clip(recipe.embed.clip_model, recipe.embed.dim)
        decoder = build_decoder([record.model for record in records])
        for unet, record in zip(decoder.unets, records, strict=True):
            checkpoints.load_weights(lake, record, unet)
    device = choose_device(recipe.decoder.device, decoder, "decoder")
    fused_attention(decoder)
    fused_norms(decoder)
    decoder.to(device).eval().requires_grad_(False)
    decoder.sample_timesteps = (drawing_steps(recipe.decoder.sample_timesteps, recipe.decoder.timesteps),) * len(
        records
    )
    words = WordEncoder(clip) if decoder.condition_on_text_encodings else None
    size = int(records[-1].model["image_size"])
    with Samples(verified, lake, "val", size) as val, Samples(verified, lake, "train") as train:
        chosen = _chosen(len(val), recipe.decoder.evaluation_samples)
        if len(chosen) < MIN_SAMPLES:
            return {"figures": {}, "verdicts": [f"not measured: the val split has {len(val)} pictures"]}
        drawn, real, originals, captions = [], [], [], []
        for number, indices in enumerate(_in_batches(chosen)):
            batch = to_device(collate([val[index] for index in indices]), device)
            texts = [str(caption) for caption in batch["caption"]]
            encodings = words(texts).to(device) if words else None
            seed_all("evaluation", number)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, recipe.decoder.precision == "bf16"),
            ):
                drawn += to_pictures(draw(decoder, tensor(batch, "image_embed"), encodings))
            real += to_pictures(resized(tensor(batch, "image"), size))
            originals.append(tensor(batch, "image_embed").cpu().numpy())
            captions += texts
            # The parent reads these lines from the output.
            print(f"{STEP}{len(drawn)}", flush=True)  # noqa: T201
        training = np.stack([train[index]["image_embed"].numpy() for index in _chosen(len(train), 100_000)])
    measures = decoder_measures(
        _embedded(clip, drawn), np.concatenate(originals), clip.embed_captions(captions), training
    )
    figures, verdicts = dict(measures.figures), list(measures.sentences)
    inception = inception_weights()
    if isinstance(inception, Unavailable):
        verdicts.append(f"no FID and KID: {inception}")
    else:
        distance = fid_and_kid(load_inception(inception), _tensors(drawn), _tensors(real))
        figures |= distance.figures
    return {"figures": {"num_drawn": len(drawn), **figures}, "verdicts": verdicts}


def _chosen(count: int, wanted: int) -> list[int]:
    chosen = np.random.default_rng(number_of("evaluation")).permutation(count)[:wanted]
    return sorted(chosen.tolist())


def _in_batches(indices: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(indices), BATCH):
        yield indices[first : first + BATCH]


def _embedded(clip: Clip, pictures: list[Image.Image]) -> npt.NDArray[np.float32]:
    parts = [
        clip.embed(pictures[first : first + BATCH], [""] * len(pictures[first : first + BATCH]))[0]
        for first in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts).astype(np.float32)


def _tensors(pictures: list[Image.Image]) -> torch.Tensor:
    """`(n, 3, size, size)` uint8."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)


def main(job_file: str) -> None:
    lines = logging.StreamHandler(sys.stdout)
    # Whoever started this process reads it line by line.
    lines.setFormatter(OneLineFormatter("%(message)s"))
    logging.basicConfig(handlers=[lines], level=logging.INFO)
    job = EvaluationJob.model_validate(json.loads(Path(job_file).read_text("utf-8")))
    try:
        result = evaluate(job)
        Lake(job.lake, job.recipe.name).write_bytes(job.path, json.dumps(result, indent=1).encode() + b"\n")
    except SpDataError as error:
        print(f"{ERROR}{error}", flush=True)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
