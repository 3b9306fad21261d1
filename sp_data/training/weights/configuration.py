"""dalle2-pytorch's own configurations -> those that `build_prior` and `build_decoder` take (training/models.py).

    {"decoder": {"unets": [{…}, {…}], "image_sizes": [64, 256], …}, "train": …}    of a whole training
    {"unets": [{…}, {…}], "image_sizes": [64, 256], …}                             of the model alone
    {"unet": {…}, "image_size": 64, …}                                             of one unet, as ours are

What a configuration leaves out has dalle2-pytorch's default; no default that is read here has changed since 1.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sp_data.errors import UsageError
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.weights.legacy import LAYOUT, OLD_LAYOUT

Fields = dict[str, Any]

SAMPLING = {
    "use_dynamic_thres": False,
    "dynamic_thres_percentile": 0.95,
    "learned_variance_constrain_frac": False,
    "lowres_noise_sample_level": 0.2,
}
"""Fields of a Decoder that change what is drawn, with their defaults; a configuration of ours leaves them out."""
FIXED = {
    "channels": 3,
    "unconditional": False,
    "auto_normalize_img": True,
    "vae": [],
    "predict_x_start_for_latent_diffusion": False,
}
"""Fields of a Decoder that can have one value here."""
TAKEN = {
    "unets",
    "image_size",
    "image_sizes",
    "timesteps",
    "beta_schedule",
    "learned_variance",
    "predict_v",
    "predict_x_start",
    "image_cond_drop_prob",
    "text_cond_drop_prob",
    "use_blur_for_lowres_cond",
    "use_noise_for_lowres_cond",
    "clip",
}
SET_BY_DECODER = {"lowres_cond", "lowres_noise_cond", "cond_on_image_embeds", "channels", "channels_out"}
"""Fields of a unet that its Decoder sets, whatever they are."""
NOT_THE_PRIORS = {"clip", "image_size", "image_channels", "clip_adapter_overrides"}
"""Fields of a DiffusionPrior that are about its CLIP, which stands beside it here."""


@dataclass(frozen=True, slots=True)
class NetworkConfiguration:
    fields: Fields
    """As training/models.py's `prior_config` or `unet_config` describes it."""
    clip_model: str = ""
    """Name of OpenAI's CLIP that it was trained with; empty where the file does not say."""
    unused: tuple[str, ...] = ()
    """Fields that change nothing in what is drawn."""


def prior_configuration(config: Mapping[str, Any], source: str, *, legacy: bool) -> NetworkConfiguration:
    """Of a prior. `legacy`: its weights compute as dalle2-pytorch 1.0 did.

    Raises UsageError that names `source` and the field that is missing or unknown.
    """
    prior = dict(config.get("prior", config))
    net = prior.get("net")
    if not isinstance(net, dict):
        raise UsageError(f"the configuration of {source} is not a prior's: expected `net`")
    module = dalle2_module()
    _refuse_unknown(prior, _arguments(module.DiffusionPrior) | {LAYOUT}, source, "prior.")
    _refuse_unknown(
        net, _arguments(module.DiffusionPriorNetwork) | _arguments(module.CausalTransformer), source, "prior.net."
    )
    _require(net, ("dim", "depth"), source, "prior.net.")
    if prior.get("image_embed_dim", net["dim"]) != net["dim"]:
        raise UsageError(f"{source}: its prior.net.dim {net['dim']} is not image_embed_dim {prior['image_embed_dim']}")
    fields = {name: value for name, value in prior.items() if value is not None and name not in NOT_THE_PRIORS}
    fields |= {
        "net": {name: value for name, value in net.items() if value is not None},
        "image_embed_dim": net["dim"],
        # The parts that read them, with dalle2-pytorch's defaults.
        "condition_on_text_encodings": prior.get("condition_on_text_encodings", True),
        "timesteps": prior.get("timesteps") or 1000,
    }
    return NetworkConfiguration(fields | _layout(legacy), _clip_model(prior))


def unet_configuration(config: Mapping[str, Any], number: int, source: str, *, legacy: bool) -> NetworkConfiguration:
    """Of the `number`-th unet (from 1) of a decoder.

    Raises UsageError that names `source` and the field that is missing, unknown, or has a value that is not possible.
    """
    decoder = dict(config.get("decoder", config))
    if isinstance(decoder.get("unet"), dict):
        return NetworkConfiguration(decoder | _layout(legacy))
    unets = decoder.get("unets")
    if not isinstance(unets, Sequence) or not all(isinstance(unet, dict) for unet in unets):
        raise UsageError(f"the configuration of {source} is not a decoder's: expected `unets`")
    count, index = len(unets), number - 1
    if count < number:
        raise UsageError(
            f"the configuration of {source} has {count} unet{'s' * (count != 1)}, and none for unet {number}"
        )
    arguments = _arguments(dalle2_module().Decoder)
    _refuse_unknown(decoder, arguments | {"unets"}, source, "decoder.")
    for name, value in FIXED.items():
        if decoder.get(name) is not None and decoder[name] != value:
            raise UsageError(
                f"{source}: its decoder.{name} is {decoder[name]}, and only {value} can be drawn with here"
            )
    sizes = _each(decoder, "image_sizes", decoder.get("image_size"), count)
    if len(sizes) != count or not all(isinstance(size, int) for size in sizes):
        raise UsageError(
            f"{source}: its configuration has {count} unets and the image_sizes {sizes}: expected one each"
        )

    unet = {name: value for name, value in unets[index].items() if value is not None and name not in SET_BY_DECODER}
    known = _arguments(dalle2_module().Unet)
    unused = [f"unets.{index}.{name}" for name in unet if name not in known]
    unet = {name: value for name, value in unet.items() if name in known}
    _require(unet, ("dim",), source, f"decoder.unets.{index}.")
    reads_words = bool(unet.get("cond_on_text_encodings"))
    if reads_words:
        _require(unet, ("text_embed_dim",), source, f"decoder.unets.{index}.")
    if number == 1:
        _require(unet, ("image_embed_dim",), source, "decoder.unets.0.")
        if unet["image_embed_dim"] == unet.get("cond_dim", unet["dim"]):
            raise UsageError(
                f"{source}: its cond_dim is its image_embed_dim, {unet['image_embed_dim']}; dalle2-pytorch would mix "
                "the pictures of a batch"
            )
    schedules = ["cosine"] * (count - 1) + ["linear" if count > 1 else "cosine"]
    fields: Fields = {
        "unet": unet,
        "image_size": sizes[index],
        "lowres_size": sizes[index - 1] if index else None,
        "beta_schedule": (decoder.get("beta_schedule") or schedules)[index],
        "timesteps": decoder.get("timesteps") or 1000,
        "sample_timesteps": None,
        "learned_variance": _first_only(decoder.get("learned_variance", True), count)[index],
        "predict_v": _each(decoder, "predict_v", False, count)[index],
        "predict_x_start": _each(decoder, "predict_x_start", False, count)[index],
        "image_cond_drop_prob": decoder.get("image_cond_drop_prob", 0.1),
        "text_cond_drop_prob": decoder.get("text_cond_drop_prob", 0.5) if reads_words else 0,
        "use_blur_for_lowres_cond": _after_first(decoder.get("use_blur_for_lowres_cond", True), count)[index],
        "use_noise_for_lowres_cond": _after_first(decoder.get("use_noise_for_lowres_cond", False), count)[index],
    }
    fields |= {name: decoder.get(name, default) for name, default in SAMPLING.items()}
    unused += [
        name
        for name, value in decoder.items()
        if name not in TAKEN and name not in SAMPLING and name not in FIXED and value is not None
    ]
    return NetworkConfiguration(fields | _layout(legacy), _clip_model(decoder), tuple(unused))


def _layout(legacy: bool) -> Fields:
    return {LAYOUT: OLD_LAYOUT} if legacy else {}


def _clip_model(fields: Mapping[str, Any]) -> str:
    """dalle2-pytorch's AdapterConfig names the CLIPs of others only in part."""
    clip = fields.get("clip")
    if not isinstance(clip, dict) or clip.get("make", "openai") != "openai":
        return ""
    return str(clip.get("model", "ViT-L/14"))


def _each(fields: Mapping[str, Any], name: str, default: Any, count: int) -> list[Any]:
    """One value a unet."""
    value = fields.get(name)
    value = default if value is None else value
    return list(value) if isinstance(value, list | tuple) else [value] * count


def _first_only(value: Any, count: int) -> list[bool]:
    """A value for the first unet, or several from the first on; the rest have none."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [bool(each) for each in [*values, *[False] * count][:count]]


def _after_first(value: Any, count: int) -> list[bool]:
    """A value for all unets after the first, or one for each of them; the first has none."""
    values = list(value) if isinstance(value, list | tuple) else [value] * (count - 1)
    return [bool(each) for each in (values if len(values) >= count else [False, *values])]


def _arguments(module_class: type) -> set[str]:
    return set(inspect.signature(module_class).parameters) - {"kwargs", "unet"}


def _refuse_unknown(fields: Mapping[str, Any], known: Collection[str], source: str, where: str) -> None:
    for name in fields:
        if name not in known:
            raise UsageError(
                f"{source}: its configuration has {where}{name}, which dalle2-pytorch 1.15.6 does not know"
            )


def _require(fields: Mapping[str, Any], names: Sequence[str], source: str, where: str) -> None:
    for name in names:
        if fields.get(name) is None:
            raise UsageError(f"{source}: its configuration lacks {where}{name}")
