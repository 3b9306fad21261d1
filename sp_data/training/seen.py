"""Which checkpoints learnt from some pictures, such as those that were forgotten since. Needs no torch.

A checkpoint saw the train split of its dataset, and of the datasets of the checkpoints that its run began with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sp_data import manifest as manifests
from sp_data.dataset.shards.find import find_samples
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.training.trained import (
    TRAINED_MODELS,
    TrainedCheckpoint,
    adopted_checkpoints,
    lineage,
    trained_checkpoints,
)
from sp_data.wiki.forgotten import read_forgotten

TITLES_NAMED = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """Which of the pictures one checkpoint learnt from, by title."""

    checkpoint: TrainedCheckpoint
    own: frozenset[str]
    """In its own dataset."""
    inherited: frozenset[str]
    """Only in the datasets of the checkpoints that its run began with."""
    is_certain: bool
    """False: one of these datasets has no manifest any more, so there may be more."""

    @property
    def titles(self) -> frozenset[str]:
        return self.own | self.inherited


def titles_in_training(
    lake: Lake, datasets: Collection[str], titles: Iterable[str], sha1s: Iterable[str]
) -> dict[str, frozenset[str]]:
    """Digest -> the titles of these pictures in the train split, for each of the datasets that has a manifest."""
    wanted_titles, wanted_sha1s = list(titles), list(sha1s)
    return {
        manifest.digest: frozenset(
            sample.title
            for sample in find_samples(lake, manifest, wanted_titles, wanted_sha1s)
            if sample.alive and sample.split == "train"
        )
        for manifest in _verified(lake)
        if manifest.digest in datasets
    }


def _verified(lake: Lake) -> Iterable[Manifest]:
    return manifests.all_of(lake, "verify")


def sightings(lake: Lake, titles: Iterable[str], sha1s: Iterable[str]) -> list[Sighting]:
    """A sighting for each checkpoint, the runs' first, that saw pictures of these titles or bytes, or may have."""
    checkpoints = trained_checkpoints(lake)
    datasets_of = lineage(lake, checkpoints)
    # One that was adopted from another lake saw nothing of this one's.
    known = {checkpoint.run for checkpoint in checkpoints} | {manifest.digest for manifest in _verified(lake)}
    checkpoints += [one for one in adopted_checkpoints(lake) if not known.isdisjoint({one.run, one.dataset})]
    titles_in = titles_in_training(lake, {digest for run in datasets_of.values() for digest in run}, titles, sha1s)
    listed = []
    for checkpoint in checkpoints:
        own = titles_in.get(checkpoint.dataset, frozenset())
        every = frozenset[str]().union(*(titles_in.get(digest, ()) for digest in datasets_of[checkpoint.node]))
        is_certain = datasets_of[checkpoint.node] <= titles_in.keys()
        if every or not is_certain:
            listed.append(Sighting(checkpoint, own, every - own, is_certain))
    return listed


@dataclass(frozen=True, slots=True)
class SawForgotten:
    """A run, or adopted weights, whose checkpoints learnt from pictures that were forgotten since."""

    stage: str
    """prior or decoder."""
    network: str
    """For people: 'prior', 'unet 2'."""
    checkpoint: TrainedCheckpoint
    """The one that generates, where the stage's manifest names this run; else its last."""
    titles: tuple[str, ...]
    """Empty: its dataset has no manifest any more, so it may have seen any of them."""
    is_in_use: bool
    """Whether the stage's manifest names the run."""
    is_repeated: bool
    """Whether the stage's next run trains it again: the pictures were in its own dataset, which is another one now."""

    @property
    def pictures(self) -> str:
        """'1 forgotten picture (File:Kenny.png)'"""
        named = ", ".join(self.titles[:TITLES_NAMED])
        more = f" and {len(self.titles) - TITLES_NAMED:,} more" if len(self.titles) > TITLES_NAMED else ""
        return f"{len(self.titles):,} forgotten picture{'s' if len(self.titles) > 1 else ''} ({named}{more})"

    def as_json(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "run": self.checkpoint.run,
            "step": None if self.checkpoint.adopted else self.checkpoint.step,
            "checkpoint": self.checkpoint.folder,
            "titles": list(self.titles),
            "in_use": self.is_in_use,
            "trained_again": self.is_in_use and self.is_repeated,
        }

    def line(self, lake: Lake) -> str:
        """What it saw, and what to do about it."""
        adopted = self.checkpoint.adopted
        name = f"{self.network}: {adopted or f'step {self.checkpoint.step:,}'} of {self.checkpoint.run}"
        what = (
            f"{name} saw {self.pictures}"
            if self.titles
            else f"{name} may have seen forgotten pictures: its dataset has no manifest any more"
        )
        if not self.is_in_use:
            place = lake.full(adopted or f"runs/{self.checkpoint.run}")
            return f"{what}; {'adopted' if adopted else 'an older run'}: delete {place} to be rid of it"
        if self.titles and not self.is_repeated:
            return f"{what} through the weights that it began with; train again from others ({self.stage}.start)"
        return f"{what}; train again: {lake.command(f'train {self.stage}')}"


def saw_forgotten(lake: Lake) -> list[SawForgotten]:
    """The runs that saw forgotten pictures, or may have: those in use first. Reads nothing where none was forgotten.

    Raises CorruptFile for a record that cannot be read.
    """
    forgotten = read_forgotten(lake)
    if not forgotten.entries:
        return []
    by_run: dict[str, list[Sighting]] = {}
    for sighting in sightings(lake, forgotten.titles, forgotten.sha1s):
        by_run.setdefault(sighting.checkpoint.node, []).append(sighting)
    names: dict[str, tuple[str, int]] = {}
    for stage in TRAINED_MODELS:
        names |= _in_use(manifests.latest(lake, stage))
    runs = []
    for node, of_run in by_run.items():
        newest = of_run[-1].checkpoint
        kind = newest.run.partition("-")[0]
        network, step = names.get(node, (newest.network.replace("unet", "unet ") if newest.adopted else kind, -1))
        chosen = next((one for one in of_run if one.checkpoint.step == step), of_run[-1])
        runs.append(
            SawForgotten(
                stage=kind,
                network=network,
                checkpoint=chosen.checkpoint,
                titles=tuple(sorted(chosen.titles)),
                is_in_use=node in names,
                is_repeated=bool(chosen.own),
            )
        )
    order = list(names)
    return sorted(runs, key=lambda saw: order.index(saw.checkpoint.run) if saw.is_in_use else len(order))


def _in_use(manifest: Manifest | None) -> dict[str, tuple[str, int]]:
    """Run -> name of its network and step of its best checkpoint, in the order of the networks."""
    networks = manifest.details.get("networks", []) if manifest else []
    return {str(network["run"]): (str(network["name"]), int(network["best"]["step"])) for network in networks}
