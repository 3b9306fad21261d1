"""Where a picture came from: PNG -> checkpoints -> datasets, and the nearest training pictures with their wiki's pages.

    red-coat.png: drawn from "a kid in a red coat", seed 7
    prior: prior-1f0c55ab step 60, trained on dataset 3f2a91bc5d60
    nearest training pictures:
      0.981  File:Jory Frost.png  http://…/wiki/Jory_Frost?oldid=412  CC-BY-SA  by Paper Cut

Nearest by CLIP, in the dataset that the picture's networks learnt from while that is there, else in the newest one.
Pictures of one wiki are alike, so a high cosine alone proves nothing: a picture is called nearly a copy if it lies
nearer to a training picture than 95 % of the pictures do that were held out (training/measures/neighbours.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from sp_data import manifest as manifests
from sp_data.canonical import parse_json
from sp_data.dataset.curate.png import SIGNATURE
from sp_data.dataset.embed.clip import Clip, load_clip
from sp_data.dataset.embed.folder import clip_folder, identity_fields
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.errors import CorruptFile, LakeError, StageNotDone
from sp_data.generation.inputs import picture_of
from sp_data.generation.picture import read_origin
from sp_data.generation.search import DatasetIndex, Neighbour, check_clip
from sp_data.generation.search_index import index_folder
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.training import checkpoints
from sp_data.training.measures.neighbours import COPY_QUANTILE
from sp_data.training.seen import titles_in_training
from sp_data.training.trained import lineage, trained_checkpoints
from sp_data.wiki.forgotten import read_forgotten

log = logging.getLogger(__name__)

NEAREST = 5
MIN_HELD_OUT = 20
"""Of fewer held-out pictures 95 % are no figure."""
MAX_HELD_OUT = 2_000
NEAR_FILE = "near.json"


@dataclass(frozen=True, slots=True)
class NearThreshold:
    """From which cosine on a picture is nearly a copy: `quantile` of the held-out pictures lie less near to their
    nearest training picture."""

    cosine: float
    quantile: float
    num_held_out: int


@dataclass(frozen=True, slots=True)
class NetworkOrigin:
    """A network that drew the picture."""

    name: str
    """'prior', 'decoder', 'unet 2'."""
    state: Literal["there", "replaced", "vanished", "damaged", "foreign"]
    """replaced: other weights lie at its place by now; foreign: a file, or adopted weights."""
    run: str
    """Empty for a foreign one."""
    step: int
    file: str
    weights: str
    """sha256."""
    datasets: tuple[str, ...]
    """Digests of the datasets that it was trained on: its own, and those of the checkpoints that its run began with."""
    forgotten: tuple[str, ...]
    """Pictures forgotten since that these datasets had in training, by title."""

    def __str__(self) -> str:
        if self.state == "foreign":
            learnt = f"trained on {self._datasets}" if self.datasets else "this lake does not know what it learnt from"
            return f"{self.name}: {self.file} (sha256 {self.weights[:12]}); {learnt}"
        state = {
            "there": "",
            "replaced": "; its place has other weights by now",
            "damaged": "; the record of the checkpoint cannot be read",
            "vanished": "; the checkpoint is gone, or of another lake",
        }[self.state]
        return f"{self.name}: {self.run} step {self.step:,}, trained on {self._datasets}{state}"

    @property
    def _datasets(self) -> str:
        digests = ", ".join(digest[:12] for digest in self.datasets) or "unknown"
        return f"{'datasets' if len(self.datasets) > 1 else 'dataset'} {digests}"


@dataclass(frozen=True, slots=True)
class DatasetOrigin:
    """A dataset that one of the networks was trained on."""

    digest: str
    state: Literal["newest", "there", "damaged", "gone"]
    """damaged: files of it are gone; gone: its manifest is."""
    made_at: str
    num_samples: int

    def __str__(self) -> str:
        if self.state == "gone":
            return f"dataset {self.digest[:12]}: no manifest any more, or of another lake"
        state = {"newest": "the newest", "there": "there, not the newest", "damaged": "files of it are gone"}[
            self.state
        ]
        return f"dataset {self.digest[:12]}: {self.num_samples:,} pictures, verified {self.made_at[:10]}, {state}"


@dataclass(frozen=True, slots=True)
class NearPicture:
    """A picture of the dataset near to the explained one."""

    neighbour: Neighbour
    page_address: str
    """Where the wiki shows the page that owns it, in the revision that was read; empty where there is no wiki."""

    def __str__(self) -> str:
        one = self.neighbour
        words = [f"{one.cosine:.3f}", one.title, one.split, self.page_address or one.page or one.url]
        return "  ".join([*words, one.licence or "licence unknown", f"by {one.uploader or 'unknown'}"])


@dataclass(frozen=True, slots=True)
class Explanation:
    name: str
    origin: dict[str, Any] | None
    """What the PNG records; None: it is not a picture of sp-data's."""
    foreign: str
    """Why it is not, in a sentence; empty if it is."""
    networks: tuple[NetworkOrigin, ...]
    datasets: tuple[DatasetOrigin, ...]
    searched: str
    """Digest of the dataset in which the nearest pictures were looked for."""
    nearest: tuple[NearPicture, ...]
    """The nearest first: of the train split if the picture is ours, else of all splits."""
    threshold: NearThreshold | None
    """None: the dataset has too few held-out pictures."""

    @property
    def is_near_copy(self) -> bool:
        return bool(self.threshold and self.nearest and self.nearest[0].neighbour.cosine > self.threshold.cosine)

    @property
    def warning(self) -> str:
        """A sentence if the picture is nearly a copy, else empty."""
        if self.threshold is None or not self.is_near_copy:
            return ""
        return (
            f"nearly a copy of {self.nearest[0].neighbour.title}: nearer than {self.threshold.quantile:.0%} of "
            f"{self.threshold.num_held_out:,} pictures held out of training lie to theirs ({self.threshold.cosine:.3f})"
        )

    def lines(self) -> Iterator[str]:
        """All of it, one fact a line."""
        if self.origin is None:
            yield f"{self.foreign}; what lies nearest to it all the same:"
        else:
            yield f"{self.name}: {_described(self.origin)}"
        for part in (*self.networks, *self.datasets):
            yield str(part)
        for network in self.networks:
            if network.forgotten:
                titles = ", ".join(network.forgotten)
                yield f"{network.run} step {network.step:,} saw pictures that are forgotten now ({titles}): train again"
        if self.origin is not None:
            yield f"nearest training pictures, in dataset {self.searched[:12]}:"
        for near in self.nearest:
            yield f"  {near}"
        if self.threshold is None:
            yield f"nearly a copy or not: unknown, since fewer than {MIN_HELD_OUT} pictures are held out of training"
        elif self.warning:
            yield self.warning
        else:
            yield f"not nearly a copy: that would be a cosine above {self.threshold.cosine:.3f}"

    def as_json(self) -> dict[str, Any]:
        fields = {**asdict(self), "is_near_copy": self.is_near_copy, "warning": self.warning}
        near = [{**one.neighbour.model_dump(), "page_address": one.page_address} for one in self.nearest]
        return {**fields, "nearest": near}


class _Network(BaseModel):
    """What a PNG says of a network; a foreign one has a file instead of run and step."""

    # In the lake's paths: no slashes and no dots alone.
    run: str = Field("", pattern=r"^(\w[\w.-]*)?$")
    step: int = Field(0, ge=0)
    weights: str = ""
    dataset: str = ""
    file: str = ""


def explain(
    data: bytes, name: str, recipe: Recipe, lake: Lake, k: int = NEAREST, *, clip: Clip | None = None
) -> Explanation:
    """Explain a picture: a PNG that sp-data drew, or any other file. `clip`: the recipe's, where it is loaded already.

    Raises UsageError for what is no picture or too large, StageNotDone if there is no verified dataset, StageError if
    the recipe's CLIP is not that of the dataset.
    """
    picture = picture_of(data, name)
    origin: dict[str, Any] | None = None
    recorded: list[tuple[str, _Network]] = []
    foreign = "" if data.startswith(SIGNATURE) else f"{name} is no PNG, so it was not drawn by sp-data"
    try:
        if not foreign:
            origin = read_origin(data, name)
            recorded = _networks_in(origin, name)
    except CorruptFile as error:
        origin, foreign = None, str(error)
    networks = _networks(recorded, lake)
    published = {manifest.digest: manifest for manifest in manifests.all_of(lake, "verify")}
    newest = manifests.latest(lake, "verify")
    digests = dict.fromkeys(digest for network in networks for digest in network.datasets)
    verified = _to_search([published[digest] for digest in digests if digest in published], newest, recipe, lake)
    clip = clip or load_clip(recipe.embed.clip_model, recipe.embed.dim)
    embedding = clip.embed([picture.image], [""])[0].astype(np.float32)
    with DatasetIndex(verified, lake) as index:
        (neighbours,) = index.nearest(embedding, k, "train" if origin is not None else None)
        threshold = near_threshold(index, lake)
    return Explanation(
        name=name,
        origin=origin,
        foreign=foreign,
        networks=networks,
        datasets=tuple(_dataset(digest, published.get(digest), newest, lake) for digest in digests),
        searched=verified.digest,
        nearest=tuple(NearPicture(near, page_address(recipe, near.page, near.revision)) for near in neighbours),
        threshold=threshold,
    )


def page_address(recipe: Recipe, page: str, revision: int | None) -> str:
    """Where the wiki shows a page, in that revision; empty without a wiki or a page."""
    if not recipe.source.wiki or not page:
        return ""
    address = f"{recipe.source.wiki}/wiki/{quote(page.replace(' ', '_'), safe='/:,()!@$*;~')}"
    return address if revision is None else f"{address}?oldid={revision}"


def near_threshold(index: DatasetIndex, lake: Lake) -> NearThreshold | None:
    """From which cosine on a picture is nearly a copy of a picture in this dataset; measured once, and kept.

    None if too few pictures are held out of training to say.
    """
    path = f"{index_folder(index.digest)}/{NEAR_FILE}"
    try:
        return NearThreshold(**parse_json(lake.read_bytes(path)))
    except (FileNotFoundError, ValueError, TypeError):
        pass
    splits = {shard["split"] for shard in index.verified.details["shards"]}
    held_out = [rows for split in sorted(splits - {"train"}) for _, rows in index.rows(split)]
    rows = np.concatenate(held_out) if held_out else np.zeros((0, index.dim), np.float32)
    if len(rows) < MIN_HELD_OUT or "train" not in splits:
        return None
    rows = rows[:: -(-len(rows) // MAX_HELD_OUT)]
    cosine = float(np.quantile(index.hits(rows, 1, "train").cosines[:, 0], COPY_QUANTILE))
    threshold = NearThreshold(cosine, COPY_QUANTILE, len(rows))
    try:
        lake.write_bytes(path, json.dumps(asdict(threshold)).encode() + b"\n")
    except LakeError as error:
        log.warning("what counts as nearly a copy could not be kept and will be measured again: %s", error)
    return threshold


def _described(origin: dict[str, Any]) -> str:
    """'drawn from "a kid in a red coat", seed 7'"""
    kind = {
        "variation": "a variation",
        "inpaint": "repainted",
        "interpolate": "drawn between two",
        "upscale": "enlarged",
    }
    inputs = [str(one.get("name", "")) for one in origin.get("inputs") or [] if isinstance(one, dict)]
    parts = [kind.get(str(origin.get("kind")), "drawn")]
    parts += [f"of {', '.join(inputs)}"] if inputs else []
    parts += [f'from "{origin["prompt"]}"'] if origin["prompt"] else []
    return f"{' '.join(parts)}, seed {origin.get('seed', 'unknown')}"


def _networks_in(origin: dict[str, Any], name: str) -> list[tuple[str, _Network]]:
    """The networks that a PNG names. Raises CorruptFile if it does not name them as sp-data does."""
    prior, decoder = origin.get("prior"), origin["decoder"]
    unets = decoder if isinstance(decoder, list) else [decoder]
    named = [("prior", prior)] if prior else []
    named += [("decoder" if len(unets) == 1 else f"unet {number}", unet) for number, unet in enumerate(unets, start=1)]
    try:
        networks = [(network, _Network.model_validate(fields)) for network, fields in named]
    except ValidationError as error:
        raise CorruptFile(
            f"the chunk of {name} names no networks as sp-data does ({error.errors()[0]['msg']})"
        ) from error
    if not networks or not all(network.run or network.file for _, network in networks):
        raise CorruptFile(f"the chunk of {name} names no networks as sp-data does")
    return networks


def _networks(recorded: list[tuple[str, _Network]], lake: Lake) -> tuple[NetworkOrigin, ...]:
    if not recorded:
        return ()
    datasets_of = lineage(lake, trained_checkpoints(lake))
    # Its own first.
    datasets_by_name = {}
    for name, network in recorded:
        inherited = datasets_of.get(network.run or network.file, set()) - {network.dataset}
        datasets_by_name[name] = [*filter(None, [network.dataset]), *sorted(inherited)]
    every = {digest for datasets in datasets_by_name.values() for digest in datasets}
    forgotten = read_forgotten(lake)
    titles_in = titles_in_training(lake, every, forgotten.titles, forgotten.sha1s) if forgotten.entries else {}
    networks = []
    for name, network in recorded:
        datasets = datasets_by_name[name]
        networks.append(
            NetworkOrigin(
                name=name,
                state=_state(network, lake),
                run=network.run,
                step=network.step,
                file=network.file,
                weights=network.weights,
                datasets=tuple(datasets),
                forgotten=tuple(sorted({title for digest in datasets for title in titles_in.get(digest, ())})),
            )
        )
    return tuple(networks)


def _state(network: _Network, lake: Lake) -> Literal["there", "replaced", "vanished", "damaged", "foreign"]:
    if not network.run:
        return "foreign"
    record = f"runs/{network.run}/checkpoints/step-{network.step:08d}/{checkpoints.RECORD}"
    if not lake.exists(record):
        return "vanished"
    try:
        return "there" if checkpoints.read(lake, record).digest == network.weights else "replaced"
    except CorruptFile:
        return "damaged"


def _to_search(trained_on: list[Manifest], newest: Manifest | None, recipe: Recipe, lake: Lake) -> Manifest:
    """The dataset whose pictures are compared: one that the picture's networks learnt from, while it is there."""
    if newest is None:
        raise StageNotDone(
            f"dataset {lake.dataset!r} has no verified dataset to look for training pictures in; run "
            f"{lake.command('run', '--until verify')}"
        )
    clip = clip_folder(identity_fields(recipe))
    for manifest in trained_on:
        if manifest.details["clip"] == clip and _is_whole(manifest, lake):
            return manifest
    check_clip(newest, clip, lake)
    return newest


def _dataset(digest: str, manifest: Manifest | None, newest: Manifest | None, lake: Lake) -> DatasetOrigin:
    if manifest is None:
        return DatasetOrigin(digest, "gone", "", 0)
    state: Literal["newest", "there", "damaged"] = "there"
    if not _is_whole(manifest, lake):
        state = "damaged"
    elif newest is not None and newest.digest == digest:
        state = "newest"
    return DatasetOrigin(digest, state, manifest.made_at, manifest.counts.out)


def _is_whole(manifest: Manifest, lake: Lake) -> bool:
    """Whether the shards of a dataset are there, with their rows."""
    names = ("tar", "parquet", *EMBEDDING_KINDS)
    paths = [shard[name]["path"] for shard in manifest.details["shards"] for name in names]
    return len(lake.sizes_of(paths)) == len(set(paths))
