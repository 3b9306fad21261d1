"""dalle2-pytorch's own configuration files as a part of a recipe.

    prior: prior_config.json                       decoder: {config: train_decoder_config.json, steps: 8000}

Each field of the file is taken, or named as not used: the dataset, its splits and the tracker are the recipe's and the
lake's own. What the file leaves out has dalle2-pytorch's default, not the recipe's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import RecipeError

CONFIG = "config"
"""The field of a part that names the file, where other fields stand beside it."""

UNET_NAMES = {
    "dim": "dim",
    "dim_mults": "dim_mults",
    "cond_dim": "cond_dim",
    "num_resnet_blocks": "num_resnet_blocks",
    "attn_heads": "attn_heads",
    "attn_dim_head": "attn_dim_head",
    "sparse_attn": "sparse_attn",
    "memory_efficient": "memory_efficient",
    "init_cross_embed": "init_cross_embed",
    "cond_on_text_encodings": "text_encodings",
}
UNET_DEFAULTS = {
    "num_resnet_blocks": 2,
    "attn_heads": 16,
    "attn_dim_head": 32,
    "self_attn": False,
    "sparse_attn": False,
    "memory_efficient": False,
    "init_cross_embed": True,
    "cond_on_text_encodings": False,
}
PRIOR_NET_NAMES = {"depth": "depth", "heads": "heads", "dim_head": "dim_head", "normformer": "normformer"}
PRIOR_NET_DEFAULTS = {"heads": 8, "dim_head": 64, "normformer": False, "attn_dropout": 0.0, "max_text_len": 256}
TRAIN_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "warmup_steps": "lr_warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "ema_beta": "ema_decay",
}
TRAIN_DEFAULTS: dict[str, dict[str, Any]] = {
    "prior": {"lr": 1.1e-4, "wd": 6.02e-2, "warmup_steps": 0, "max_grad_norm": 0.5, "ema_beta": 0.99},
    "decoder": {"lr": 1e-4, "wd": 0.01, "warmup_steps": 0, "max_grad_norm": 0.5, "ema_beta": 0.999},
}
FIXED = {
    "channels": 3,
    "image_channels": 3,
    "loss_type": "l2",
    "num_time_embeds": 1,
    "num_image_embeds": 1,
    "num_text_embeds": 1,
    "ff_mult": 4,
    "norm_in": False,
    "norm_out": True,
    "final_proj": True,
    "rotary_emb": True,
    "num_image_tokens": 4,
    "num_time_tokens": 2,
    "lowres_noise_sample_level": 0.2,
    "use_ema": True,
}
"""Fields that a recipe does not have; with these values a file says what the recipe does anyway."""
FOLLOWS = {"image_embed_dim", "text_embed_dim", "image_size", "lowres_cond", "cond_on_image_embeds", "clip"}
"""Fields that follow from the CLIP and from the place in the cascade."""
Fields = dict[str, Any]


def expanded(fields: Mapping[str, Any], folder: Path) -> tuple[Fields, list[str]]:
    """A recipe's fields with the configuration files of its prior and decoder read in, and the names of what in those
    files is not used. Paths are relative to `folder`. Raises RecipeError."""
    whole, unused = dict(fields), []
    for part, translate in (("prior", _prior), ("decoder", _decoder)):
        given = whole.get(part)
        named = given if isinstance(given, str) else given.get(CONFIG) if isinstance(given, dict) else None
        if named is None:
            continue
        path = folder / str(named)
        translated, left_out = translate(_read(path), path)
        own = {name: value for name, value in given.items() if name != CONFIG} if isinstance(given, dict) else {}
        whole[part] = translated | own
        unused += [f"{path.name}: {name}" for name in left_out]
    return whole, unused


def _read(path: Path) -> Fields:
    try:
        config = parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"{path} is not JSON ({error}); expected one of dalle2-pytorch's configurations") from error
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: expected an object, as in dalle2-pytorch's configurations")
    return config


class _Source:
    """A group of a file's fields, and which of them were taken."""

    def __init__(self, fields: Any, prefix: str) -> None:
        self.fields: Fields = fields if isinstance(fields, dict) else {}
        self.prefix = prefix
        self.taken: set[str] = set()

    def take(self, name: str, default: Any = None) -> Any:
        self.taken.add(name)
        value = self.fields.get(name)
        return default if value is None else value

    def left_out(self) -> Iterator[str]:
        for name, value in self.fields.items():
            if name not in self.taken and name not in FOLLOWS and value is not None and FIXED.get(name) != value:
                yield f"{self.prefix}{name}"


def _training(source: _Source, kind: str, batch_size: Any) -> Fields:
    fields = {ours: source.take(theirs, TRAIN_DEFAULTS[kind][theirs]) for theirs, ours in TRAIN_NAMES.items()}
    return {**fields, **({"batch_size": batch_size} if batch_size is not None else {})}


def _prior(config: Fields, path: Path) -> tuple[Fields, list[str]]:
    whole = _Source(config, "")
    # A file of the model alone, or of a whole training.
    is_training = "prior" in config
    model = _Source(whole.take("prior") if is_training else config, "prior." if is_training else "")
    net = _Source(model.take("net"), f"{model.prefix}net.")
    if not net.fields:
        raise RecipeError(f"{path}: expected `net`, as in dalle2-pytorch's DiffusionPriorConfig")
    net.take("dim")
    fields = {ours: net.take(theirs, PRIOR_NET_DEFAULTS.get(theirs)) for theirs, ours in PRIOR_NET_NAMES.items()}
    fields["max_text_len"] = net.take("max_text_len", PRIOR_NET_DEFAULTS["max_text_len"])
    fields["dropout"] = net.take("attn_dropout", 0.0)
    if net.fields.get("ff_dropout", 0.0) == fields["dropout"]:
        net.take("ff_dropout")
    fields["timesteps"] = model.take("timesteps", 1000)
    if net.fields.get("num_timesteps") == fields["timesteps"]:
        net.take("num_timesteps")
    if (steps := model.take("sample_timesteps")) is not None:
        fields["sample_timesteps"] = steps
    fields["cond_drop_prob"] = model.take("cond_drop_prob", 0.0)
    fields["text_encodings"] = model.take("condition_on_text_encodings", True)
    for name, value in (("predict_x_start", True), ("beta_schedule", "cosine")):
        if model.fields.get(name, value) == value:
            model.take(name)
    sources = [model, net]
    if is_training:
        train, data = _Source(whole.take("train"), "train."), _Source(whole.take("data"), "data.")
        fields |= _training(train, "prior", data.take("batch_size"))
        fields["seed"] = train.take("random_seed", 0)
        sources += [whole, train, data]
    return fields, [name for source in sources for name in source.left_out()]


def _decoder(config: Fields, path: Path) -> tuple[Fields, list[str]]:
    whole = _Source(config, "")
    is_training = "decoder" in config
    model = _Source(whole.take("decoder") if is_training else config, "decoder." if is_training else "")
    given = model.take("unets")
    if not isinstance(given, list) or not given:
        raise RecipeError(f"{path}: expected `unets`, as in dalle2-pytorch's DecoderConfig")
    count = len(given)
    unets = [_Source(unet, f"{model.prefix}unets.{index}.") for index, unet in enumerate(given)]
    sizes = _each(model.take("image_sizes", model.take("image_size")), count)
    crops = _each(model.take("random_crop_sizes"), count)
    blurs = _each(model.take("use_blur_for_lowres_cond", True), count - 1)
    noises = _each(model.take("use_noise_for_lowres_cond", False), count - 1)
    fields: Fields = {"unets": []}
    for index, unet in enumerate(unets):
        self_attn = unet.take("self_attn", UNET_DEFAULTS["self_attn"])
        dim_mults = unet.fields.get("dim_mults", [])
        translated = {ours: unet.take(theirs, UNET_DEFAULTS.get(theirs)) for theirs, ours in UNET_NAMES.items()}
        # dalle2-pytorch's default.
        translated["cond_dim"] = translated["cond_dim"] or translated["dim"]
        translated["self_attn"] = self_attn if isinstance(self_attn, list) else [self_attn] * len(dim_mults)
        translated |= {"image_size_px": sizes[index], "random_crop_px": crops[index]}
        if index:
            translated["use_blur_for_lowres_cond"] = blurs[index - 1]
            translated["use_noise_for_lowres_cond"] = noises[index - 1]
        fields["unets"].append({name: value for name, value in translated.items() if value is not None})
    fields["timesteps"] = model.take("timesteps", 1000)
    steps = {step for step in _each(model.fields.get("sample_timesteps"), count) if step is not None}
    if len(steps) <= 1:
        model.take("sample_timesteps")
        if steps:
            fields["sample_timesteps"] = steps.pop()
    learned = _each(model.take("learned_variance", True), count)
    fields["learned_variance"] = learned[0]
    is_v, is_x = (_each(model.take(name, False), count)[0] for name in ("predict_v", "predict_x_start"))
    fields["objective"] = "v" if is_v else "x_start" if is_x else "noise"
    schedules = ["cosine"] * (count - 1) + ["linear" if count > 1 else "cosine"]
    if _each(model.fields.get("beta_schedule"), count) in (schedules, [None] * count):
        model.take("beta_schedule")
    for name, default in (("image_cond_drop_prob", 0.1), ("text_cond_drop_prob", 0.5)):
        fields[name] = model.take(name, default)
    sources = [model, *unets]
    if is_training:
        train, data = _Source(whole.take("train"), "train."), _Source(whole.take("data"), "data.")
        evaluate = _Source(whole.take("evaluate"), "evaluate.")
        training = _training(train, "decoder", data.take("batch_size", 64))
        for name, value in training.items():
            if isinstance(value, list):
                for unet_fields, own in zip(fields["unets"], value, strict=False):
                    unet_fields[name] = own
            else:
                fields[name] = value
        if (every := train.take("save_every_n_samples")) is not None:
            fields["save_every"] = max(1, int(every) // int(training["batch_size"]))
        fields["evaluation_samples"] = evaluate.take("n_evaluation_samples", 0)
        fields["seed"] = whole.take("seed", 0)
        sources += [whole, train, data, evaluate]
    return fields, [name for source in sources for name in source.left_out()]


def _each(value: Any, count: int) -> list[Any]:
    """One value for each unet."""
    values = list(value) if isinstance(value, list) else [value] * count
    return [*values, *[None] * count][:count]
