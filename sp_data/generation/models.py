"""The models that make pictures: a CLIP, a prior and a decoder, loaded from a dataset's checkpoints."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass

import torch
from torch import nn

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import Clip, load_clip, quiet
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.errors import StageError, StageNotDone, UsageError
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.models import Kind, build_decoder, build_prior
from sp_data.training.switches import fused_attention, fused_norms
from sp_data.training.trained import best_folders, runs_of
from sp_data.training.words import WordEncoder

log = logging.getLogger(__name__)

BEST, LATEST = "best", "latest"


@dataclass(frozen=True, slots=True)
class Models:
    """All on one device, in evaluation mode, with averaged weights."""

    clip: Clip
    words: WordEncoder | None
    """None if neither prior nor decoder reads words."""
    prior: nn.Module
    decoder: nn.Module
    prior_checkpoint: Checkpoint
    unet_checkpoints: tuple[Checkpoint, ...]
    """In the order of the decoder's unets."""
    device: torch.device
    dim: int


def load_models(recipe: Recipe, lake: Lake, named: list[str] | None = None, device: str = "auto") -> Models:
    """Load a dataset's prior and decoder; the recipe sets how many steps they sample.

    `named`: `best` (the default), `latest`, or checkpoints' paths, at most one for the prior and for each unet.
    `device`: `auto`, `cpu` or `cuda`.

    Raises StageNotDone if there is no checkpoint, UsageError if a named one does not exist, StageError if a checkpoint
    was trained on another CLIP's embeddings, or if the unets do not fit together.
    """
    (prior_checkpoint,) = find_checkpoints("prior", lake, named or [BEST])
    unet_checkpoints = find_checkpoints("decoder", lake, named or [BEST])
    folder = clip_folder(identity_fields(recipe))
    for checkpoint in (prior_checkpoint, *unet_checkpoints):
        if checkpoint.clip != folder:
            raise StageError(
                f"{checkpoint} was trained on embeddings of {checkpoint.clip}, but the recipe's CLIP is {folder}; "
                f"give the recipe that it was trained with, or run {lake.command(f'train {checkpoint.kind}')}"
            )
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise StageError("--device cuda: torch finds no CUDA device; see `nvidia-smi`")
    target = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    clip = load_clip(recipe.embed.clip_model, recipe.embed.dim)
    with quiet():
        prior = build_prior(prior_checkpoint.model)
        checkpoints.load_weights(lake, prior_checkpoint, prior)
        decoder = build_decoder([checkpoint.model for checkpoint in unet_checkpoints])
        for unet, checkpoint in zip(decoder.unets, unet_checkpoints, strict=True):
            checkpoints.load_weights(lake, checkpoint, unet)
    for model in (prior, decoder):
        fused_attention(model)
        fused_norms(model)
        model.to(target).eval().requires_grad_(False)
    prior.sample_timesteps = recipe.prior.sample_timesteps
    decoder.sample_timesteps = (recipe.decoder.sample_timesteps,) * len(unet_checkpoints)
    log.info("generate: %s, %s on %s", prior_checkpoint, ", ".join(map(str, unet_checkpoints)), target)
    reads_words = prior.condition_on_text_encodings or decoder.condition_on_text_encodings
    return Models(
        clip=clip,
        words=WordEncoder(clip) if reads_words else None,
        prior=prior,
        decoder=decoder,
        prior_checkpoint=prior_checkpoint,
        unet_checkpoints=unet_checkpoints,
        device=target,
        dim=recipe.embed.dim,
    )


def find_checkpoints(kind: Kind, lake: Lake, named: list[str]) -> tuple[Checkpoint, ...]:
    """The checkpoints of a kind that `named` selects: one prior, or one for each unet of a decoder, in order.

    Raises StageNotDone or UsageError.
    """
    choice = BEST
    chosen: dict[int, Checkpoint] = {}
    for name in named:
        if name in (BEST, LATEST):
            choice = name
        elif (checkpoint := checkpoints.at(lake, name)).kind == kind:
            chosen[checkpoint.unet or 1] = checkpoint
    if kind == "prior" and chosen:
        return (chosen[1],)
    # What is not named comes from the runs that belong together.
    by_unet = dict(enumerate(_finished(kind, lake) if choice == BEST else (), start=1))
    by_unet = by_unet or dict(enumerate(_newest(kind, lake, choice), start=1))
    if chosen and len(by_unet | chosen) < max(chosen):
        raise UsageError(f"{chosen[max(chosen)]} is of unet {max(chosen)}: name the checkpoints of those before it too")
    by_unet |= chosen
    if not by_unet:
        raise StageNotDone(
            f"dataset {lake.dataset!r} has no checkpoint of a {kind}; run {lake.command(f'train {kind}')} first, "
            f"or {lake.command('run')} for all stages"
        )
    return tuple(by_unet[number] for number in sorted(by_unet))


def _finished(kind: str, lake: Lake) -> list[Checkpoint]:
    """The best checkpoints of the training that finished last; none if one of them is gone."""
    finished = manifests.latest(lake, kind)
    folders = best_folders(finished) if finished is not None else []
    if not all(lake.exists(f"{folder}/{checkpoints.RECORD}") for folder in folders):
        return []
    return [checkpoints.read(lake, f"{folder}/{checkpoints.RECORD}") for folder in folders]


def _newest(kind: str, lake: Lake, choice: str) -> list[Checkpoint]:
    """The checkpoints of the runs that saved last, finished or not, up to the first unet that has none."""
    by_time: list[tuple[str, list[Checkpoint]]] = []
    for runs in runs_of(lake, kind):
        whole = [checkpoints.of_run(lake, run) for run in runs]
        saved = list(itertools.takewhile(bool, whole))
        if saved:
            last = max(checkpoint.made_at for run_checkpoints in saved for checkpoint in run_checkpoints)
            pick = checkpoints.best if choice == BEST else (lambda run_checkpoints: run_checkpoints[-1])
            by_time.append((last, [pick(run_checkpoints) for run_checkpoints in saved]))
    return max(by_time, key=lambda entry: entry[0])[1] if by_time else []
