"""Networks with their weights: of a checkpoint, of weights that the lake adopted, or of a file of dalle2-pytorch's.

A `Network` knows what it is before its weights are read. `check_together` finds networks that do not fit together by
name, `built` makes one prior and one decoder of those that do.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sp_data.dataset.embed.clip import Clip, quiet
from sp_data.errors import StageError, UsageError
from sp_data.lake import Lake
from sp_data.training import checkpoints
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.models import TINY, build_decoder, build_prior
from sp_data.training.weights import laion
from sp_data.training.weights.adopt import FOLDER, Adopted, find, find_start, load_start
from sp_data.training.weights.configuration import (
    SAMPLING,
    NetworkConfiguration,
    prior_configuration,
    unet_configuration,
)
from sp_data.training.weights.fill import fill
from sp_data.training.weights.legacy import State, convert_prior, convert_unet, family
from sp_data.training.weights.read import Network as FileNetwork

log = logging.getLogger(__name__)

PLACEHOLDER = {**TINY, "image_embed_dim": 16}
"""A unet that fills its place in a decoder until the one with weights comes."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A prior, or a unet of a decoder."""

    unet: int | None
    """1 draws, 2 and more enlarge; None for a prior."""
    source: WeightsSource
    clip_model: str
    """Name of OpenAI's CLIP that it was trained with, where its file says it and `source.clip` does not."""
    load: Callable[[nn.Module], None]
    """Fills the DiffusionPrior or Unet of its configuration."""
    is_mapped: bool
    """Whether `load` gives a network on the meta device its weights as they are mapped into memory, without a copy."""

    @property
    def config(self) -> dict[str, Any]:
        return self.source.config

    @property
    def dim(self) -> int | None:
        """Width of the embeddings that it knows; None for a unet that reads none."""
        if self.unet is None:
            return int(self.config["net"]["dim"])
        return int(self.config["unet"]["image_embed_dim"]) if self.unet == 1 else None

    @property
    def words_dim(self) -> int | None:
        """Width of the words that it reads; None if it reads none."""
        if self.unet is None:
            return self.dim if self.config.get("condition_on_text_encodings", True) else None
        unet = self.config["unet"]
        return int(unet["text_embed_dim"]) if unet.get("cond_on_text_encodings") else None

    @property
    def name(self) -> str:
        """'prior', 'unet 2'."""
        return "prior" if self.unet is None else f"unet {self.unet}"

    def __str__(self) -> str:
        return f"{self.name} ({self.source.shown})"


def of_checkpoint(lake: Lake, checkpoint: Checkpoint) -> Network:
    def load(network: nn.Module) -> None:
        checkpoints.load_weights(lake, checkpoint, network)

    unet = None if checkpoint.kind == "prior" else checkpoint.unet or 1
    return Network(unet, WeightsSource.of_checkpoint(checkpoint), "", load, is_mapped=False)


def of_adopted(lake: Lake, name: str) -> Network:
    """Of weights/NAME in the lake. Raises UsageError if there are none, or nothing says what network they are of."""
    record = find_start(lake, name)
    shown = f"{FOLDER}/{name}"
    described = _described(record.config, record.unet, shown, legacy=record.legacy)

    def load(network: nn.Module) -> None:
        _, state = load_start(lake, name)
        fill(network, _in_float32(state), shown)

    origin = {"file": shown, "weights": record.digest, **({"dataset": record.dataset} if record.dataset else {})}
    source = WeightsSource(record.name, origin, record.clip, described.fields)
    return Network(record.unet, source, described.clip_model or _clip_model(record), load, is_mapped=True)


def _clip_model(record: Adopted) -> str:
    """LAION's own configurations do not all say it."""
    return laion.CLIP if record.name in laion.PUBLISHED else ""


def of_file(
    found: FileNetwork,
    shown: str,
    sha256: str,
    *,
    version: str | None,
    config: dict[str, Any] | None,
    clip_model: str,
) -> Network:
    """One of the networks that `read` found in a file of dalle2-pytorch's.

    `shown`, `sha256`: the file's name and its sum. `version`: dalle2-pytorch's that saved it; `config`: its
    configuration; `clip_model`: OpenAI's name of its CLIP, where the configuration does not say it.

    Raises UsageError if nothing says what network it is, or how its version computed.
    """
    legacy = family(found.kind, found.state, version, shown) == "1.0"
    described = _described(config, found.unet, shown, legacy=legacy)
    convert = convert_prior if found.kind == "prior" else convert_unet

    def load(network: nn.Module) -> None:
        fill(network, _in_float32(convert(found.state)), shown)

    source = WeightsSource(shown, {"file": shown, "weights": sha256}, "", described.fields)
    return Network(found.unet, source, described.clip_model or clip_model, load, is_mapped=True)


def _described(config: dict[str, Any] | None, unet: int | None, shown: str, *, legacy: bool) -> NetworkConfiguration:
    if config is None:
        raise UsageError(
            f"{shown} came without a configuration, so nothing says what network it is of: give dalle2-pytorch's JSON "
            "(load_config_from in a file for --models)"
        )
    if unet is None:
        described = prior_configuration(config, shown, legacy=legacy)
    else:
        described = unet_configuration(config, unet, shown, legacy=legacy)
    if described.unused:
        log.info(
            "%s: not used of its configuration, as it only concerns training: %s", shown, ", ".join(described.unused)
        )
    return described


def _in_float32(state: State) -> State:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def named_network(lake: Lake, name: str) -> Network:
    """What `--checkpoint NAME` means: weights that the lake adopted, or a checkpoint's path. Raises UsageError."""
    adopted = name.removeprefix(f"{FOLDER}/").rstrip("/")
    if find(lake, adopted) is not None:
        return of_adopted(lake, adopted)
    if "/" not in name and not Path(name).exists():
        # Says which names there are.
        find_start(lake, name)
    return of_checkpoint(lake, checkpoints.at(lake, name))


def check_together(prior: Network, unets: Sequence[Network]) -> int:
    """Returns the width of the embeddings that all of them know. Raises StageError that names two that do not fit."""
    if prior.dim != unets[0].dim:
        raise StageError(f"{prior} knows embeddings of {prior.dim} numbers, but {unets[0]} those of {unets[0].dim}")
    for smaller, larger in itertools.pairwise(unets):
        drawn, expected = smaller.config["image_size"], larger.config["lowres_size"]
        if drawn != expected:
            raise StageError(f"{larger} enlarges pictures of {expected} px, but {smaller} draws {drawn} px")
        if smaller.config["timesteps"] != larger.config["timesteps"]:
            raise StageError(
                f"{smaller} was trained with {smaller.config['timesteps']:,} timesteps, but {larger} with "
                f"{larger.config['timesteps']:,}: dalle2-pytorch has one number for a decoder"
            )
    assert prior.dim is not None
    return prior.dim


def check_words(networks: Sequence[Network], clip: Clip, clip_model: str) -> None:
    """Raises StageError that names a network that reads words of another width than the CLIP has."""
    reading = [network for network in networks if network.words_dim is not None]
    width = clip.embed_words(["a"])[1].shape[-1] if reading else 0
    for network in reading:
        if network.words_dim != width:
            raise StageError(
                f"{network} reads words of {network.words_dim} numbers, but those of CLIP {clip_model!r} have {width}"
            )


def check_clip(network: Network, clip_model: str, folder: str, cure: str) -> None:
    """Raises StageError if a network says that it was trained with another CLIP.

    `folder`: of this CLIP, as `clip_folder` names it. A CLIP that is given by a path may be any.
    """
    known = network.source.clip or (network.clip_model if not is_path(clip_model) else "")
    if known and known not in (folder, clip_model):
        raise StageError(
            f"{network} was trained on embeddings of {known}, but the CLIP is "
            f"{folder if network.source.clip else clip_model}; {cure}"
        )


def is_path(clip_model: str) -> bool:
    """Whether a CLIP's name is a path: /a/file.pt, hf_clip:/a/folder, open_clip:ARCHITECTURE//a/file.pt."""
    return clip_model.startswith("/") or ":/" in clip_model or "//" in clip_model


def built(prior: Network, unets: Sequence[Network]) -> tuple[Any, Any]:
    """A DiffusionPrior and a Decoder with their weights, on the CPU.

    Raises StageError if dalle2-pytorch cannot build one of them or the unets differ in what a Decoder has one of,
    UsageError or CorruptFile if the weights are others.
    """
    with quiet():
        with _naming(prior):
            model = build_prior(prior.config)
        prior.load(model)
        # The schedules are made here, the unets one by one: of large ones no random weights are made.
        places = [{**unet.config, "unet": PLACEHOLDER} for unet in unets]
        decoder = build_decoder(places)
        for index, unet in enumerate(unets):
            own = [*places[:index], unet.config, *places[index + 1 :]]
            with _naming(unet), torch.device("meta") if unet.is_mapped else contextlib.nullcontext():
                network = build_decoder(own, only=index + 1).unets[index]
            unet.load(network)
            decoder.unets[index] = network
        for name, default in SAMPLING.items():
            setattr(decoder, name, _one_for_all(unets, name, default))
    return model, decoder


@contextlib.contextmanager
def _naming(network: Network) -> Any:
    """Name the network whose configuration dalle2-pytorch refuses."""
    try:
        yield
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(f"dalle2-pytorch cannot build the {network} from its configuration: {first}") from error


def _one_for_all(unets: Sequence[Network], name: str, default: Any) -> Any:
    """The value of a field that a Decoder has once. Raises StageError if two unets have different ones."""
    if name == "lowres_noise_sample_level":
        # The first one enlarges nothing.
        unets = unets[1:]
    elif name == "dynamic_thres_percentile":
        unets = [unet for unet in unets if unet.config.get("use_dynamic_thres")]
    for other in unets[1:]:
        first, second = (unet.config.get(name, default) for unet in (unets[0], other))
        if first != second:
            raise StageError(
                f"{unets[0]} has {name} {first}, but {other} {second}: dalle2-pytorch has one for a decoder; change "
                "the configuration of one of them"
            )
    return unets[0].config.get(name, default) if unets else default
