"""Which dataset each run and each checkpoint was trained on, from what they say of themselves; needs no torch.

runs/decoder-1f0c55ab/config.json                              {"kind": "decoder", "dataset": "3f2a…", ...}
runs/decoder-1f0c55ab/checkpoints/step-00000500/checkpoint.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sp_data.errors import CorruptFile, LakeBusy
from sp_data.lake import Lake

CONFIG, RECORD = "config.json", "checkpoint.json"
TRAINED_MODELS = ("prior", "decoder")


@dataclass(frozen=True, slots=True)
class Trained:
    """A checkpoint, as much of it as tells where it came from."""

    run: str
    step: int
    dataset: str
    """Digest of the verified dataset."""
    ancestor: str
    """Name of the checkpoint of another run that its run began with; empty if it began anew."""

    @property
    def folder(self) -> str:
        return f"runs/{self.run}/checkpoints/step-{self.step:08d}"

    def __str__(self) -> str:
        return f"{self.run} step {self.step:,}"


def trained(lake: Lake) -> list[Trained]:
    """Every checkpoint of a dataset's runs, by run and step. Raises CorruptFile for a record that cannot be read."""
    paths = [path for path in lake.list("runs") if path.endswith(f"/{RECORD}")]
    found = []
    for path, data in zip(paths, lake.read_all(paths), strict=True):
        said = _read(data, lake.full(path))
        found.append(Trained(said["run"], said["step"], said["dataset"], said.get("ancestor", "")))
    return sorted(found, key=lambda one: (one.run, one.step))


def under_way(lake: Lake) -> dict[str, str]:
    """Run -> digest of its dataset, for the kinds that a process trains at this moment.

    A training that has no checkpoint yet is known by its lock, which it holds from its beginning to its end, and by its
    run's configuration. The lock does not tell the run, so every run of that kind counts.
    """
    paths = [path for path in lake.list("runs") if path.endswith(f"/{CONFIG}") and path.count("/") == 2]
    busy = {
        kind for kind in TRAINED_MODELS if any(_kind_of(path) == kind for path in paths) and _is_trained(lake, kind)
    }
    return {
        path.split("/")[1]: _read(lake.read_bytes(path), lake.full(path))["dataset"]
        for path in paths
        if _kind_of(path) in busy
    }


def lineage(lake: Lake, checkpoints: list[Trained]) -> dict[str, set[str]]:
    """Run -> digests of all datasets that its weights have learnt from: its own, and those of what it began with."""
    dataset_of = {one.run: one.dataset for one in checkpoints}
    for path in lake.list("runs"):
        # The checkpoint that a run began with may be gone by now, its run's configuration is not.
        if path.endswith(f"/{CONFIG}") and path.count("/") == 2:
            dataset_of.setdefault(path.split("/")[1], _read(lake.read_bytes(path), lake.full(path))["dataset"])
    parent_of = {one.run: one.ancestor.split("/")[0] for one in checkpoints if one.ancestor}
    found: dict[str, set[str]] = {}
    for run in {one.run for one in checkpoints}:
        line: list[str] = []
        at: str | None = run
        while at is not None and at not in line:
            line.append(at)
            at = parent_of.get(at)
        found[run] = {dataset_of[one] for one in line if one in dataset_of}
    return found


def _is_trained(lake: Lake, kind: str) -> bool:
    try:
        with lake.writer(kind):
            return False
    except LakeBusy:
        return True


def _kind_of(path: str) -> str:
    return path.split("/")[1].partition("-")[0]


def _read(data: bytes, shown: str) -> dict[str, Any]:
    try:
        said = json.loads(data)
        return {**said, "run": str(said["run"]), "step": int(said.get("step", 0)), "dataset": str(said["dataset"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{shown} does not say what it was trained on ({error}); delete its folder") from error
