"""Models by a configuration of dalle2-laion's (laion_json.py): LAION's, other people's and ours, mixed.

What a path may name:

    a .pth or .safetensors of dalle2-pytorch's, such as LAION's or what `sp-data weights export` writes
    runs/RUN/checkpoints/step-…    a checkpoint's folder
    weights/NAME                   weights that a lake adopted

Local paths are relative to the configuration, else to the dataset's folder in the lake.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sp_data.canonical import parse_json, sha256_of
from sp_data.dataset.embed.clip import Clip, load_clip, weights_digest
from sp_data.dataset.embed.folder import clip_folder
from sp_data.errors import StageError, UsageError
from sp_data.generation.laion_json import ClipSource, Configuration, File, PriorSource, UnetSource, read_configuration
from sp_data.generation.models import BEST, LATEST, Models, assembled, choose_device
from sp_data.generation.networks import (
    Network,
    check_clip,
    check_together,
    check_words,
    is_path,
    named_network,
    of_adopted,
    of_checkpoint,
    of_file,
)
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.recipe.dataset import Embed
from sp_data.training import checkpoints
from sp_data.training.weights import laion
from sp_data.training.weights.adopt import FOLDER, RECORD, find
from sp_data.training.weights.read import Network as FileNetwork
from sp_data.training.weights.read import read

log = logging.getLogger(__name__)

HUB_FILE = re.compile(r"https?://(?P<host>[^/]+)/(?P<repo>[^/]+/[^/]+)/(?:resolve|raw)/main/(?P<path>[^?]+)(?:\?.*)?")
LAIONS = {(published.repo, published.path) for published in laion.PUBLISHED.values()}
CLIP_MAKES = {"openai": "", "open_clip": "open_clip:", "hf_clip": "hf_clip:"}
"""dalle2-laion's name of a CLIP's maker -> what clip-retrieval puts before the model's name."""


def load_configuration(
    path: Path, recipe: Recipe, lake: Lake, named: list[str] | None = None, device: str = "auto"
) -> Models:
    """Load the models of a configuration; what it leaves out (steps, the CLIP) is the recipe's.

    `named`: checkpoints' paths or names of adopted weights, which take the place of the configuration's.

    Raises UsageError for a field that is unknown, missing or impossible, StageError for networks or a CLIP that do not
    fit together, HubUnreachable and CorruptFile for files that cannot be fetched or read.
    """
    configuration = read_configuration(path)
    places = _Places(path, lake)
    prior, unets = _networks(configuration, places, named or [])
    dim = check_together(prior, unets)
    steps, prior_steps = _steps(configuration, places, unets), _prior_steps(configuration, places, prior)
    clip_model = _clip_model(configuration.clip, places, recipe)
    embed = recipe.embed
    if clip_model != embed.clip_model:
        embed = Embed(clip_model=clip_model, name=_folder_name(clip_model), dim=dim)
    folder = clip_folder({**embed.identity_fields(), "weights": weights_digest(clip_model)})
    for network in (prior, *unets):
        check_clip(network, clip_model, folder, f"change `clip` in {path}, or give the --recipe it was trained with")
    target = choose_device(device)
    clip = _load_clip(clip_model, dim, path)
    check_words((prior, *unets), clip, clip_model)
    if unused := [*places.unused, *configuration.unused]:
        log.info("%s: not used: %s", path.name, "; ".join(unused))
    scales = _cond_scale(configuration, unets)
    models = assembled(
        clip, folder, prior, unets, target, recipe, steps=steps, prior_steps=prior_steps, cond_scale=scales
    )
    if scales is not None and not models.guides_decoder:
        raise places.error(
            "decoder",
            f"default_cond_scale {max(scales):g}: the decoder was trained without dropping its condition; only 1 works",
        )
    return models


def _networks(
    configuration: Configuration, places: _Places, named: Sequence[str]
) -> tuple[Network, tuple[Network, ...]]:
    networks: dict[int | None, Network] = {}
    for name in named:
        if name in (BEST, LATEST):
            raise UsageError(f"--checkpoint {name}: beside --models, name a checkpoint's path or adopted weights")
        network = named_network(places.lake, name)
        networks[network.unet] = network
    for where, source in configuration.unet_sources:
        if wanted := [number for number in source.unet_numbers if number not in networks]:
            networks |= places.networks(source, where, wanted)
    if None not in networks:
        if configuration.prior is None:
            raise places.error("prior", "is missing, and words need one: add LAION's, or name yours (--checkpoint)")
        networks |= places.networks(configuration.prior, "prior", [None])
    count = max(number or 0 for number in networks)
    for number in range(1, max(count, 1) + 1):
        if number not in networks:
            raise places.error("decoder.unet_sources", f"unet {number} is missing, and each is needed up to the last")
    return networks[None], tuple(networks[number] for number in range(1, count + 1))


class _Places:
    """Finds what a configuration names, and keeps the list of those of its fields that are not used."""

    def __init__(self, file: Path, lake: Lake) -> None:
        self.file, self.lake = file, lake
        self.unused: list[str] = []

    def error(self, where: str, message: str) -> UsageError:
        return UsageError(f"{self.file}: {where}: {message}")

    def networks(
        self, source: UnetSource | PriorSource, where: str, wanted: Sequence[int | None]
    ) -> dict[int | None, Network]:
        """The unets of these numbers, or the prior (None), of a source."""
        place, where_model = source.load_model_from, f"{where}.load_model_from"
        own = self._own(place, where_model)
        if own is None:
            makers = self._in_file(source, where)
        else:
            makers = {own.unet: lambda: own}
            if source.load_config_from is not None:
                self.unused.append(f"{where}.load_config_from (the record of {own.source.shown} has one)")
        for number in wanted:
            if number not in makers:
                held = ", ".join(map(_name, makers))
                raise self.error(where_model, f"{place.path} holds {held}, and no {_name(number)}")
        return {number: makers[number]() for number in wanted}

    def _own(self, place: File, where: str) -> Network | None:
        """The checkpoint or the adopted weights that a local path names; None if it names a file."""
        path = self.file.parent / place.path
        if place.load_type == "url" or path.is_file():
            return None
        if path.is_dir():
            path = path.resolve()
            if (path / checkpoints.RECORD).is_file():
                lake = Lake(str(path.parents[1]), path.parent.name)
                return of_checkpoint(lake, checkpoints.read(lake, f"{path.name}/{checkpoints.RECORD}"))
            if (path / RECORD).is_file() and path.parent.name == FOLDER:
                return of_adopted(Lake(str(path.parents[2]), path.parents[1].name), path.name)
            raise self.error(where, f"{path} is neither a checkpoint's folder nor weights/NAME of a lake")
        inside = place.path.rstrip("/")
        is_inside = not inside.startswith("/") and ".." not in PurePosixPath(inside).parts
        if is_inside and (
            find(self.lake, inside.removeprefix(f"{FOLDER}/")) or self.lake.exists(f"{inside}/{checkpoints.RECORD}")
        ):
            return named_network(self.lake, inside)
        raise self.error(
            where, f"nothing is at {path}, nor at {inside} in dataset {self.lake.dataset!r}; fetch it, or mend the path"
        )

    def _in_file(self, source: UnetSource | PriorSource, where: str) -> dict[int | None, Callable[[], Network]]:
        """Each network of a file -> what makes it."""
        place, where_model = source.load_model_from, f"{where}.load_model_from"
        file, shown, is_laions = self._file(place, where_model)
        found = read(file)
        config, says = found[0].config, found[0].version
        if config is None and source.load_config_from is not None:
            config = self._config(source.load_config_from, f"{where}.load_config_from")
        elif source.load_config_from is not None:
            self.unused.append(f"{where}.load_config_from ({shown} has its own)")
        if says and place.version and says != place.version:
            raise self.error(f"{where_model}.version", f"{shown} says that {says} saved it, not {place.version}")
        version = says or place.version or (laion.VERSION if is_laions else None)
        clip_model = laion.CLIP if is_laions else ""
        with file.open("rb") as stream:
            sha256 = sha256_of(stream)

        def make(network: FileNetwork) -> Network:
            try:
                return of_file(network, shown, sha256, version=version, config=config, clip_model=clip_model)
            except UsageError as error:
                if version is not None or "--version" not in str(error):
                    raise
                raise UsageError(f'{error} (in {self.file}: "version": "{laion.VERSION}" in {where_model})') from error

        return {network.unet: functools.partial(make, network) for network in found}

    def _file(self, place: File, where: str) -> tuple[Path, str, bool]:
        """A file on this machine, what people call it, and whether LAION published it."""
        about_fetching = [
            name for name in ("cache_dir", "filename_override", "checksum_file_path") if getattr(place, name)
        ]
        if place.load_type == "local":
            self.unused += [f"{where}.{name} (the file is local)" for name in about_fetching]
            file = self.file.parent / place.path
            if not file.is_file():
                raise self.error(where, f"no file {file}; fetch it, or mend the path")
            return file, file.name, False
        match = HUB_FILE.fullmatch(place.path)
        shown = f"{match['repo']}/{match['path']}" if match else place.path
        is_laions = match is not None and (match["repo"], match["path"]) in LAIONS
        name = place.filename_override or place.path.partition("?")[0].rsplit("/", 1)[-1]
        if place.cache_dir and (kept := self.file.parent / place.cache_dir / name).is_file():
            # dalle2-laion has fetched it.
            log.info("%s: %s is there already: %s", self.file.name, shown, kept)
            return kept, shown, is_laions
        if match is None or match["host"] not in _hubs():
            raise self.error(
                where,
                f"{place.path} is not on the main branch of the Hugging Face hub, which alone tells the sums of its "
                "files; download it, and name it with load_type local",
            )
        self.unused += [f"{where}.{name} (the hub's own cache and sums are used)" for name in about_fetching]
        try:
            return laion.fetched(match["repo"], match["path"]), shown, is_laions
        except laion.HubUnreachable as error:
            raise laion.HubUnreachable(
                f"{self.file}: {where}: {error}; run it again with a network, or download it elsewhere and name it "
                "with load_type local"
            ) from error

    def _config(self, place: File, where: str) -> dict[str, Any]:
        file, _, _ = self._file(place, where)
        try:
            config = parse_json(file.read_bytes())
        except ValueError as error:
            raise self.error(where, f"{file} is no JSON ({error})") from error
        if not isinstance(config, dict):
            raise self.error(where, f"{file} is no configuration of dalle2-pytorch: expected an object")
        return config


def _hubs() -> set[str]:
    """The hub, and where HF_ENDPOINT says that it is."""
    from huggingface_hub import constants

    return {"huggingface.co", constants.ENDPOINT.partition("://")[2]}


def _name(unet: int | None) -> str:
    return "prior" if unet is None else f"unet {unet}"


def _steps(configuration: Configuration, places: _Places, unets: Sequence[Network]) -> int | None:
    """Of the decoder's sampler, where the configuration says it of a unet: the most, if of several."""
    steps: set[int] = set()
    for where, source in configuration.unet_sources:
        for number, value in zip(source.unet_numbers, source.default_sample_timesteps or (), strict=False):
            timesteps = unets[number - 1].config["timesteps"]
            if not 1 <= value <= timesteps:
                raise places.error(f"{where}.default_sample_timesteps", f"{value}: expected 1 to {timesteps}")
            steps.add(value)
    if len(steps) > 1:
        places.unused.append(f"default_sample_timesteps below {max(steps)} (--steps takes one number a unet)")
    return max(steps, default=None)


def _prior_steps(configuration: Configuration, places: _Places, prior: Network) -> int | None:
    steps = configuration.prior.default_sample_timesteps if configuration.prior else None
    timesteps = prior.config["timesteps"]
    if steps is not None and not 2 <= steps <= timesteps:
        raise places.error("prior.default_sample_timesteps", f"{steps}: expected 2 to {timesteps}")
    return steps


def _cond_scale(configuration: Configuration, unets: Sequence[Network]) -> tuple[float, ...] | None:
    """Guidance of each unet, where the configuration says it of one; None: no guidance."""
    scales: dict[int, float] = {}
    for _, source in configuration.unet_sources:
        scales |= dict(zip(source.unet_numbers, source.default_cond_scale or (), strict=False))
    wanted = tuple(float(scales.get(number, 1)) for number in range(1, len(unets) + 1))
    return wanted if any(scale != 1 for scale in wanted) else None


def _clip_model(source: ClipSource | None, places: _Places, recipe: Recipe) -> str:
    """The CLIP as clip-retrieval names it."""
    if source is None:
        log.info("%s names no clip: the recipe's, %s, is taken", places.file.name, recipe.embed.clip_model)
        return recipe.embed.clip_model
    if source.make not in CLIP_MAKES:
        raise places.error(
            "clip.make", f"{source.make!r}: clip-retrieval, which runs CLIPs here, has {', '.join(CLIP_MAKES)}"
        )
    model = CLIP_MAKES[source.make] + source.model
    prefix, colon, location = model.rpartition(":")
    if source.make == "open_clip" and "/" not in location:
        raise places.error(
            "clip.model",
            f"{source.model!r} does not say which weights: expected for example ViT-B-32/laion2b_s34b_b79k",
        )
    if location.startswith("."):
        return f"{prefix}{colon}{(places.file.parent / location).resolve()}"
    return model


def _folder_name(clip_model: str) -> str:
    """'ViT-L-14'; of a path its last part, as pictures tell it to everybody."""
    location = clip_model.rpartition(":")[2]
    name = Path(location).stem if is_path(clip_model) else location
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-") or "clip"


def _load_clip(clip_model: str, dim: int, path: Path) -> Clip:
    try:
        return load_clip(clip_model, dim)
    except StageError as error:
        raise StageError(
            f"{path}: its networks know embeddings of {dim} numbers, which its clip does not give: {error}"
        ) from error
