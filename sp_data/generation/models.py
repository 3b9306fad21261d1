"""The models that make pictures: a CLIP, a prior and a decoder, loaded from a dataset's checkpoints."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sp_data import manifest as manifests
from sp_data.dataset.embed.clip import Clip, load_clip, quiet
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.errors import StageError, StageNotDone
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.models import Kind, build
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
    checkpoints: dict[Literal["prior", "decoder"], Checkpoint]
    device: torch.device
    dim: int


def load_models(recipe: Recipe, lake: Lake, named: list[str] | None = None, device: str = "auto") -> Models:
    """Load a dataset's prior and decoder; the recipe sets how many steps they sample.

    `named`: `best` (the default), `latest`, or a checkpoint's path for each of the two models. `device`: `auto`, `cpu`
    or `cuda`.

    Raises StageNotDone if there is no checkpoint, UsageError if a named one does not exist, StageError if a checkpoint
    was trained on another CLIP's embeddings.
    """
    chosen = {kind: find_checkpoint(kind, lake, named or [BEST]) for kind in ("prior", "decoder")}
    folder = clip_folder(identity_fields(recipe))
    for checkpoint in chosen.values():
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
    built: dict[str, nn.Module] = {}
    with quiet():
        for kind, checkpoint in chosen.items():
            model = build(checkpoint.kind, checkpoint.model)
            checkpoints.load_weights(lake, checkpoint, model)
            built[kind] = model.to(target).eval().requires_grad_(False)
    built["prior"].sample_timesteps = recipe.prior.sample_timesteps  # type: ignore[assignment]
    built["decoder"].sample_timesteps = (  # type: ignore[assignment]
        recipe.decoder.sample_timesteps,
    ) * len(chosen["decoder"].model["unets"])
    log.info("generate: %s, %s on %s", chosen["prior"], chosen["decoder"], target)
    reads_words = built["prior"].condition_on_text_encodings or built["decoder"].condition_on_text_encodings
    return Models(
        clip=clip,
        words=WordEncoder(clip) if reads_words else None,
        prior=built["prior"],
        decoder=built["decoder"],
        checkpoints={"prior": chosen["prior"], "decoder": chosen["decoder"]},
        device=target,
        dim=recipe.embed.dim,
    )


def find_checkpoint(kind: Kind, lake: Lake, named: list[str]) -> Checkpoint:
    """The checkpoint of a kind that `named` selects. Raises StageNotDone or UsageError."""
    choice = BEST
    for name in named:
        if name in (BEST, LATEST):
            choice = name
        elif (checkpoint := checkpoints.at(lake, name)).kind == kind:
            return checkpoint
    run = _newest_run(kind, lake)
    run_checkpoints = checkpoints.of_run(lake, run) if run else []
    if not run_checkpoints:
        raise StageNotDone(
            f"dataset {lake.dataset!r} has no checkpoint of a {kind}; run {lake.command(f'train {kind}')} first, "
            f"or {lake.command('run')} for all stages"
        )
    return run_checkpoints[-1] if choice == LATEST else checkpoints.best(run_checkpoints)


def _newest_run(kind: str, lake: Lake) -> str | None:
    """The run that finished last; if none is finished, one that is not."""
    finished = manifests.latest(lake, kind)
    if finished is not None:
        return str(finished.details["run"])
    records = [path for path in lake.list("runs") if path.startswith(f"runs/{kind}-") and path.endswith("config.json")]
    return records[-1].split("/")[1] if records else None
