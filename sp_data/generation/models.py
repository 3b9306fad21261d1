"""The models that make pictures: a CLIP, a prior and a decoder, loaded from a dataset's checkpoints.

laion.py loads them from other people's files.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import torch

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import Clip, load_clip, quiet
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.errors import StageError, StageNotDone, UsageError
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.models import LAYOUT, Kind, build_decoder, build_prior
from sp_data.training.switches import fused_attention, fused_norms
from sp_data.training.trained import best_folders, runs_of
from sp_data.training.words import WordEncoder

log = logging.getLogger(__name__)

BEST, LATEST = "best", "latest"


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Where the weights of one network came from."""

    shown: str
    """For people: 'prior-1f0c55ab step 800', or the name of a file."""
    origin: dict[str, Any]
    """What a picture records of it: run, step, weights (sha256) and dataset; of a foreign file, file and weights."""
    clip: str
    """The CLIP whose embeddings it knows, as `clip_folder` names it; empty where its file does not say."""
    config: dict[str, Any]
    """Its configuration (training/models.py)."""

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> WeightsSource:
        origin = {
            "run": checkpoint.run,
            "step": checkpoint.step,
            "weights": checkpoint.digest,
            "dataset": checkpoint.dataset,
        }
        return cls(str(checkpoint), origin, checkpoint.clip, checkpoint.model)


@dataclass(frozen=True, slots=True)
class Models:
    """All on one device, in evaluation mode, with averaged weights."""

    clip: Clip
    clip_name: str
    """As a picture records it."""
    words: WordEncoder | None
    """None if neither prior nor decoder reads words."""
    prior: Any
    """dalle2-pytorch's DiffusionPrior."""
    decoder: Any
    """dalle2-pytorch's Decoder."""
    prior_weights: WeightsSource
    unet_weights: tuple[WeightsSource, ...]
    """In the order of the decoder's unets."""
    device: torch.device
    dim: int
    steps: int
    """Of the decoder's sampler, where nobody says otherwise."""

    @property
    def image_size_px(self) -> int:
        """Of a finished picture."""
        return int(self.decoder.image_sizes[-1])

    @property
    def num_unets(self) -> int:
        return len(self.unet_weights)

    @property
    def guides_prior(self) -> bool:
        """Whether the prior learnt without its words too. Those of dalle2-pytorch 1.0 never did, whatever they say."""
        return bool(self.prior.can_classifier_guidance) and LAYOUT not in self.prior_weights.config

    @property
    def guides_decoder(self) -> bool:
        """Whether the unets learnt without their condition too."""
        return bool(self.decoder.can_classifier_guidance)


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
    target = choose_device(device)
    clip = load_clip(recipe.embed.clip_model, recipe.embed.dim)
    with quiet():
        prior = build_prior(prior_checkpoint.model)
        checkpoints.load_weights(lake, prior_checkpoint, prior)
        decoder = build_decoder([checkpoint.model for checkpoint in unet_checkpoints])
        for unet, checkpoint in zip(decoder.unets, unet_checkpoints, strict=True):
            checkpoints.load_weights(lake, checkpoint, unet)
    prior.sample_timesteps = recipe.prior.sample_timesteps
    log.info("generate: %s, %s on %s", prior_checkpoint, ", ".join(map(str, unet_checkpoints)), target)
    return assembled(
        clip,
        folder,
        prior,
        decoder,
        WeightsSource.of_checkpoint(prior_checkpoint),
        tuple(map(WeightsSource.of_checkpoint, unet_checkpoints)),
        target,
        recipe.decoder.sample_timesteps,
    )


def choose_device(requested: str) -> torch.device:
    """Raises StageError if CUDA is asked for and missing."""
    has_cuda = torch.cuda.is_available()
    if requested == "cuda" and not has_cuda:
        raise StageError("--device cuda: torch finds no CUDA device; see `nvidia-smi`")
    return torch.device("cuda" if has_cuda and requested != "cpu" else "cpu")


def assembled(
    clip: Clip,
    clip_name: str,
    prior: Any,
    decoder: Any,
    prior_weights: WeightsSource,
    unet_weights: tuple[WeightsSource, ...],
    device: torch.device,
    steps: int,
) -> Models:
    """Networks with their weights, made fast and put on the device."""
    for model in (prior, decoder):
        fused_attention(model)
        fused_norms(model)
        model.to(device).eval().requires_grad_(False)
    reads_words = prior.condition_on_text_encodings or decoder.condition_on_text_encodings
    return Models(
        clip=clip,
        clip_name=clip_name,
        words=WordEncoder(clip) if reads_words else None,
        prior=prior,
        decoder=decoder,
        prior_weights=prior_weights,
        unet_weights=unet_weights,
        device=device,
        dim=clip.dim,
        steps=steps,
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
