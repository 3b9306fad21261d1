"""A file of dalle2-pytorch's -> the networks in it. Nothing in the file is executed.

    who wrote it                     top level of the file                         in it
    dalle2-pytorch's scripts         {version, config, model}                      a decoder, unets.0.* and so on
    DecoderTrainer.save              {model, version, steps, optim0, ema, ...}     a decoder, trained and averaged
    DiffusionPriorTrainer.save       {model, ema_model, version, optimizer, ...}   a prior, trained and averaged
    LAION                            a bare state dict                             a prior with its CLIP; a decoder
    safetensors                      a bare state dict

Of averaged (EMA) and trained weights the averaged are taken. A unet that is an Identity, as the trainer leaves those
that it does not train, has no weights and is no network.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sp_data.errors import CorruptFile, UsageError
from sp_data.training.weights.legacy import NetworkKind, State

UPSAMPLER_CHANNELS = 6
"""The picture, and the one to be enlarged."""
NOT_OF_A_NETWORK = ("clip.", "noise_scheduler.", "noise_schedulers.", "lowres_conds.")
SEVERAL = re.compile(r"unets\.(\d+)\.(.+)")
AVERAGED_UNET = re.compile(r"(\d+)\.ema_model\.(.+)")
AVERAGED_PRIOR = "ema_model."


class Inert:
    """Stands in for an object that is no weight: takes what it is given, does nothing."""

    def __new__(cls, *args: object, **_: object) -> Inert:
        inert = super().__new__(cls)
        inert.args, inert.state = args, None
        return inert

    args: tuple[object, ...]
    state: object

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


def plain_dict(*_: object) -> dict[object, object]:
    """Stands in for collections.defaultdict; its factory is dropped."""
    return {}


STAND_INS: dict[str, Callable[..., object]] = {
    name: type(name.rsplit(".", 1)[-1], (Inert,), {})
    for name in (
        "packaging.version.Version",
        "packaging.version._Version",
        "packaging._structures.InfinityType",
        "packaging._structures.NegativeInfinityType",
        "pytorch_warmup.base.BaseWarmup",
        "pytorch_warmup.base.LinearWarmup",
        "pytorch_warmup.base.ExponentialWarmup",
        "pytorch_warmup.untuned.UntunedLinearWarmup",
        "pytorch_warmup.untuned.UntunedExponentialWarmup",
        "pytorch_warmup.radam.RAdamWarmup",
        "accelerate.optimizer.AcceleratedOptimizer",
        "torch.optim.adam.Adam",
        "torch.optim.adamw.AdamW",
        "builtins.dict",
    )
} | {"collections.defaultdict": plain_dict}
"""Global in a pickle -> what is made instead of it. Every other global beside tensors' is refused."""


@dataclass(frozen=True, slots=True)
class Network:
    """`state` has the names of Unet.state_dict(), or of DiffusionPrior.state_dict() without CLIP and noise schedule."""

    kind: NetworkKind
    unet: int | None
    """1 draws, 2 and more enlarge; None for a prior."""
    state: State
    version: str | None
    """dalle2-pytorch's, if the file says it."""
    config: dict[str, Any] | None
    """What the file has under `config`."""


def read(path: Path) -> list[Network]:
    """The networks of a .pth or .safetensors file, mapped into memory and read when they are used.

    Raises CorruptFile if the file is damaged or holds something else, UsageError if it would have to be unpickled.
    """
    if not path.is_file():
        raise UsageError(f"no file {path}: expected a .pth or .safetensors file")
    saved = read_safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    version, config = _version(saved.get("version")), saved.get("config")
    if saved and all(isinstance(value, Tensor) for value in saved.values()):
        state, averaged = saved, {}
    elif isinstance(saved.get("model"), dict):
        state, averaged = saved["model"], _averaged(saved)
    else:
        raise CorruptFile(
            f"{path} holds {', '.join(map(str, list(saved)[:5])) or 'nothing'} at its top; expected weights, or `model`"
        )
    return networks_of(
        state, str(path), averaged=averaged, version=version, config=config if isinstance(config, dict) else None
    )


def networks_of(
    state: Mapping[str, Tensor],
    source: str,
    *,
    averaged: Mapping[tuple[NetworkKind, int | None], State] | None = None,
    version: str | None = None,
    config: dict[str, Any] | None = None,
) -> list[Network]:
    """Take a state dict apart: a decoder's, a unet's or a prior's. Raises CorruptFile that names an unknown weight."""
    parts: defaultdict[tuple[NetworkKind, int | None], State] = defaultdict(dict)
    kept = {name: value for name, value in state.items() if not name.startswith(NOT_OF_A_NETWORK)}
    is_unet = any(name.startswith("init_conv.") for name in kept)
    for name, value in kept.items():
        if match := SEVERAL.fullmatch(name):
            parts["unet", int(match[1]) + 1][match[2]] = value
        elif name.startswith("net."):
            parts["prior", None][name] = value
        elif is_unet:
            parts["unet", None][name] = value
        else:
            raise CorruptFile(f"{source}: weight {name} is neither a prior's (net.*) nor a unet's (unets.N.*)")
    if not parts:
        raise CorruptFile(f"{source} holds no weights of a prior or a unet")
    if len({kind for kind, _ in parts}) > 1 or (("unet", None) in parts and len(parts) > 1):
        raise CorruptFile(f"{source} mixes a prior, a decoder or a bare unet: expected one of them")
    parts |= {key: weights for key, weights in (averaged or {}).items() if key in parts}
    return [
        Network(
            kind=kind,
            unet=(number or _number(weights, source)) if kind == "unet" else None,
            state=weights,
            version=version,
            config=config,
        )
        for (kind, number), weights in sorted(parts.items(), key=lambda part: part[0][1] or 0)
    ]


def _number(state: State, source: str) -> int:
    """1 or 2 by the channels that come in."""
    first = next((value for name, value in state.items() if name.startswith("init_conv.") and value.ndim == 4), None)
    if first is None:
        raise CorruptFile(f"{source}: its init_conv is no convolution")
    return 2 if first.shape[1] == UPSAMPLER_CHANNELS else 1


def _averaged(saved: dict[str, Any]) -> dict[tuple[NetworkKind, int | None], State]:
    """The averaged weights that a trainer saved, without those of an average that had not begun."""
    ema = saved["ema"] if isinstance(saved.get("ema"), dict) else {}
    found: defaultdict[tuple[NetworkKind, int | None], State] = defaultdict(dict)
    for name, value in ema.items():
        if match := AVERAGED_UNET.fullmatch(name):
            found["unet", int(match[1]) + 1][match[2]] = value
        elif name.startswith(AVERAGED_PRIOR):
            found["prior", None][name.removeprefix(AVERAGED_PRIOR)] = value
    if isinstance(saved.get("ema_model"), dict):
        found["prior", None] = saved["ema_model"]
    if ("prior", None) in found:
        found["prior", None] = {n: v for n, v in found["prior", None].items() if not n.startswith(NOT_OF_A_NETWORK)}
    begun = {
        key: ema.get("initted" if key[1] is None else f"{key[1] - 1}.initted", torch.tensor(True)) for key in found
    }
    return {key: state for key, state in found.items() if bool(begun[key].all())}


def read_safetensors(path: Path) -> dict[str, Any]:
    """The weights in a file. Raises CorruptFile."""
    try:
        tensors: dict[str, Any] = load_file(path)
    except Exception as error:
        # A broken file makes safetensors and torch raise errors of many kinds.
        raise CorruptFile(f"{path} cannot be read ({first_line(error)}); fetch it again") from error
    return tensors


def _pickled(path: Path) -> dict[str, Any]:
    # The form before torch 1.6 is no zip file, and cannot be mapped.
    is_zip = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()]):
        try:
            refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) if is_zip else []
            saved = None if refused else torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except Exception as error:
            # A pickle that is broken raises whatever its broken part makes torch raise.
            refused = re.findall(r"GLOBAL (\S+)", str(error))[:1]
            if not refused:
                raise CorruptFile(f"{path} cannot be read ({first_line(error)}); fetch it again") from error
    if refused:
        raise UsageError(
            f"{path} holds {', '.join(refused)}, which loading would run: refused; save its weights alone, as a "
            f"state dict or .safetensors, if you trust it"
        )
    if not isinstance(saved, dict):
        raise CorruptFile(f"{path} holds a {type(saved).__name__}; expected a dictionary of weights")
    return saved


def _version(saved: object) -> str | None:
    """A version as text: a string, or a `packaging.version.Version` of before or after packaging 26."""
    if isinstance(saved, str):
        return saved
    release: object = None
    if isinstance(saved, Inert) and type(saved).__name__ == "Version":
        state = saved.state
        if isinstance(state, dict):
            release = getattr(state.get("_version"), "args", ())[1:2]
            release = release[0] if release else None
        elif isinstance(state, tuple):
            release = state[1] if len(state) > 1 else None
    return ".".join(str(part) for part in release) if isinstance(release, tuple) else None


def first_line(error: BaseException) -> str:
    """What an error says first, without torch's page of advice to unpickle the file after all."""
    lines = [line for line in str(error).partition("WeightsUnpickler error:")[2].splitlines() if line.strip()]
    return (lines or str(error).splitlines() or [type(error).__name__])[0].strip()[:200]
