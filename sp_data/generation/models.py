"""The models that make pictures: a CLIP, a prior and a decoder, of a dataset's checkpoints or of adopted weights.

laion.py loads them by a configuration of dalle2-laion's.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import Clip, load_clip
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.errors import StageError, StageNotDone, UsageError
from sp_data.generation.networks import (
    Network,
    WeightsSource,
    built,
    check_clip,
    check_together,
    check_words,
    named_network,
    of_checkpoint,
)
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.models import LAYOUT, Kind
from sp_data.training.switches import fused_attention, fused_norms
from sp_data.training.trained import best_folders, runs_of
from sp_data.training.words import WordEncoder

log = logging.getLogger(__name__)

BEST, LATEST = "best", "latest"


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
    """dalle2-pytorch's Decoder. A generator in bf16 rounds its weights: what is saved comes from the checkpoint."""
    prior_weights: WeightsSource
    unet_weights: tuple[WeightsSource, ...]
    """In the order of the decoder's unets."""
    device: torch.device
    dim: int
    steps: int
    """Of the decoder's sampler, where nobody says otherwise."""
    cond_scale: tuple[float, ...] | None = None
    """Guidance of each unet, where nobody says otherwise; None: the generator's own default."""

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

    `named`: `best` (the default), `latest`, checkpoints' paths or names of adopted weights (sp-data weights), at most
    one for the prior and for each unet. `device`: `auto`, `cpu` or `cuda`.

    Raises StageNotDone if there is no checkpoint, UsageError if a named one does not exist, StageError if one of them
    was trained on another CLIP's embeddings, or if they do not fit together.
    """
    prior_network, unets = _networks(lake, named or [BEST])
    folder = clip_folder(identity_fields(recipe))
    for network in (prior_network, *unets):
        stage = "prior" if network.unet is None else "decoder"
        cure = f"give the recipe that it was trained with, or run {lake.command(f'train {stage}')}"
        check_clip(network, recipe.embed.clip_model, folder, cure)
    dim = check_together(prior_network, unets)
    if dim != recipe.embed.dim:
        raise StageError(
            f"{prior_network} knows embeddings of {dim} numbers, but the recipe's CLIP makes those of "
            f"{recipe.embed.dim} (embed.dim); give the recipe that it was trained with"
        )
    target = choose_device(device)
    clip = load_clip(recipe.embed.clip_model, recipe.embed.dim)
    check_words((prior_network, *unets), clip, recipe.embed.clip_model)
    return assembled(clip, folder, prior_network, unets, target, recipe)


def _networks(lake: Lake, named: list[str]) -> tuple[Network, tuple[Network, ...]]:
    """The prior, and a network for each unet of the decoder. Raises StageNotDone, UsageError."""
    choice = ([BEST] + [name for name in named if name in (BEST, LATEST)])[-1]
    explicit = [named_network(lake, name) for name in named if name not in (BEST, LATEST)]
    priors = [network for network in explicit if network.unet is None]
    prior = priors[-1] if priors else of_checkpoint(lake, find_checkpoints("prior", lake, [choice])[0])
    own = enumerate(_belonging_together("decoder", lake, choice), start=1)
    by_unet = {number: of_checkpoint(lake, checkpoint) for number, checkpoint in own}
    by_unet |= {network.unet: network for network in explicit if network.unet is not None}
    if not by_unet:
        raise _not_done("decoder", lake)
    if len(by_unet) < max(by_unet):
        raise UsageError(f"{by_unet[max(by_unet)]} enlarges: name the unets before it too (--checkpoint)")
    return prior, tuple(by_unet[number] for number in sorted(by_unet))


def choose_device(requested: str) -> torch.device:
    """Raises StageError if CUDA is asked for and missing."""
    has_cuda = torch.cuda.is_available()
    if requested == "cuda" and not has_cuda:
        raise StageError("--device cuda: torch finds no CUDA device; see `nvidia-smi`")
    return torch.device("cuda" if has_cuda and requested != "cpu" else "cpu")


def assembled(
    clip: Clip,
    clip_name: str,
    prior_network: Network,
    unets: Sequence[Network],
    device: torch.device,
    recipe: Recipe,
    *,
    steps: int | None = None,
    prior_steps: int | None = None,
    cond_scale: tuple[float, ...] | None = None,
) -> Models:
    """Networks that fit together, with their weights, made fast and put on the device.

    `steps`, `prior_steps`, `cond_scale`: where nobody says otherwise; None: the recipe's, and no guidance.
    """
    prior, decoder = built(prior_network, unets)
    for model in (prior, decoder):
        fused_attention(model)
        fused_norms(model)
        model.to(device).eval().requires_grad_(False)
    # A foreign prior may have fewer timesteps than the recipe samples.
    prior.sample_timesteps = prior_steps or min(recipe.prior.sample_timesteps, prior.noise_scheduler.num_timesteps)
    reads_words = prior.condition_on_text_encodings or decoder.condition_on_text_encodings
    log.info("generate: %s on %s", ", ".join(network.source.shown for network in (prior_network, *unets)), device)
    return Models(
        clip=clip,
        clip_name=clip_name,
        words=WordEncoder(clip) if reads_words else None,
        prior=prior,
        decoder=decoder,
        prior_weights=prior_network.source,
        unet_weights=tuple(unet.source for unet in unets),
        device=device,
        dim=clip.dim,
        steps=steps or recipe.decoder.sample_timesteps,
        cond_scale=cond_scale,
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
    by_unet = dict(enumerate(_belonging_together(kind, lake, choice), start=1))
    if chosen and len(by_unet | chosen) < max(chosen):
        raise UsageError(f"{chosen[max(chosen)]} is of unet {max(chosen)}: name the checkpoints of those before it too")
    by_unet |= chosen
    if not by_unet:
        raise _not_done(kind, lake)
    return tuple(by_unet[number] for number in sorted(by_unet))


def _not_done(kind: Kind, lake: Lake) -> StageNotDone:
    return StageNotDone(
        f"dataset {lake.dataset!r} has no checkpoint of a {kind}; run {lake.command(f'train {kind}')} first, "
        f"or {lake.command('run')} for all stages"
    )


def _belonging_together(kind: Kind, lake: Lake, choice: str) -> list[Checkpoint]:
    """The checkpoints of the training that finished last, for `best`; else of the runs that saved last."""
    return (_finished(kind, lake) if choice == BEST else []) or _newest(kind, lake, choice)


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
