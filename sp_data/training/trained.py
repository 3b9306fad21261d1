"""Which dataset each run and each checkpoint was trained on, by their own records; needs no torch.

runs/decoder-1f0c55ab/config.json                              {"kind": "decoder", "dataset": "3f2a…", ...}
runs/decoder-1f0c55ab/checkpoints/step-00000500/checkpoint.json
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import CorruptFile, LakeBusy, StageNotDone, reason_of
from sp_data.lake import Lake
from sp_data.manifest import Manifest

CONFIG, RECORD = "config.json", "checkpoint.json"
WORDS = "words"
"""Folder of the lake with the vectors of captions' words (words.py), which are made again where they are missing."""
TRAINED_MODELS = ("prior", "decoder")


@dataclass(frozen=True, slots=True)
class TrainedCheckpoint:
    """The fields of a checkpoint that tell where it came from."""

    run: str
    step: int
    dataset: str
    """Digest of the verified dataset."""
    ancestor: str
    """Name of the checkpoint of another run that its run began with; empty if it began from scratch."""
    network: str = ""
    """'prior', or 'unet1' of the decoder."""
    made_at: str = ""
    """UTC, ISO 8601; empty in a record that does not say it."""

    @property
    def folder(self) -> str:
        return f"runs/{self.run}/checkpoints/step-{self.step:08d}"

    def __str__(self) -> str:
        return f"{self.run} step {self.step:,}"


def best_folders(manifest: Manifest) -> list[str]:
    """Folders of the checkpoints that generate: the prior's, or one for each unet of the decoder.

    Raises StageNotDone for a manifest of before unets were trained on their own.
    """
    if "networks" not in manifest.details:
        raise StageNotDone(
            f"the {manifest.stage} was trained by an older version of sp-data, whose checkpoints this one does not "
            f"load; train the {manifest.stage} again"
        )
    return [str(network["best"]["folder"]) for network in manifest.details["networks"]]


def runs_of(lake: Lake, kind: str) -> list[list[str]]:
    """The runs of a kind that belong together: a prior's alone, or those of a decoder's unets in order."""
    groups = []
    for path in lake.list("runs"):
        if path.endswith(f"/{CONFIG}") and path.count("/") == 2 and _kind_of(path) == kind:
            runs = [str(run) for run in _object(lake, path).get("runs") or ()]
            if runs and runs not in groups:
                groups.append(runs)
    return groups


def words_paths(clip: str, dataset: str, split: str) -> tuple[str, str]:
    """Where the words of a split lie in the lake: values and ends."""
    stem = f"{WORDS}/{clip}/{dataset[:16]}-{split}"
    return f"{stem}.values.f16", f"{stem}.ends.npy"


def trained_checkpoints(lake: Lake) -> list[TrainedCheckpoint]:
    """Every checkpoint of a dataset's runs, by run and step. Raises CorruptFile for a record that cannot be read."""
    paths = [path for path in lake.list("runs") if path.endswith(f"/{RECORD}")]
    checkpoints = []
    for path, data in zip(paths, lake.read_all(paths), strict=True):
        record = _read(data, lake.full(path))
        checkpoints.append(
            TrainedCheckpoint(
                record["run"],
                record["step"],
                record["dataset"],
                record.get("ancestor", ""),
                f"unet{record['unet']}" if record.get("unet") else str(record.get("kind", "")),
                str(record.get("made_at", "")),
            )
        )
    return sorted(checkpoints, key=lambda checkpoint: (checkpoint.run, checkpoint.step))


def runs_in_progress(lake: Lake) -> dict[str, str]:
    """Run -> digest of its dataset, for the kinds that a process is training.

    A training without a checkpoint so far is recognised by its lock, which it holds from its beginning to its end, and
    by its run's configuration. The lock does not name the run, so every run of that kind counts.
    """
    paths = [path for path in lake.list("runs") if path.endswith(f"/{CONFIG}") and path.count("/") == 2]
    trained_kinds = {
        kind for kind in TRAINED_MODELS if any(_kind_of(path) == kind for path in paths) and _is_trained(lake, kind)
    }
    return {
        path.split("/")[1]: _read(lake.read_bytes(path), lake.full(path))["dataset"]
        for path in paths
        if _kind_of(path) in trained_kinds
    }


def lineage(lake: Lake, checkpoints: list[TrainedCheckpoint]) -> dict[str, set[str]]:
    """Run -> digests of all datasets that its weights were trained on: its own, and those of its ancestors."""
    dataset_of = {checkpoint.run: checkpoint.dataset for checkpoint in checkpoints}
    for path in lake.list("runs"):
        # The checkpoint that a run began with may be removed by now; the configuration of its run is not.
        if path.endswith(f"/{CONFIG}") and path.count("/") == 2:
            dataset_of.setdefault(path.split("/")[1], _read(lake.read_bytes(path), lake.full(path))["dataset"])
    parent_of = {checkpoint.run: _parent(checkpoint.ancestor) for checkpoint in checkpoints if checkpoint.ancestor}
    for path in lake.list("weights"):
        # Adopted weights stand between a run and the checkpoint that they were.
        if path.endswith("/adopted.json"):
            adopted = _object(lake, path)
            node = path.removesuffix("/adopted.json")
            if adopted.get("dataset"):
                dataset_of[node] = str(adopted["dataset"])
            if adopted.get("run"):
                parent_of[node] = str(adopted["run"])
    datasets: dict[str, set[str]] = {}
    for run in {checkpoint.run for checkpoint in checkpoints}:
        line: list[str] = []
        current: str | None = run
        while current is not None and current not in line:
            line.append(current)
            current = parent_of.get(current)
        datasets[run] = {dataset_of[ancestor] for ancestor in line if ancestor in dataset_of}
    return datasets


def _parent(ancestor: str) -> str:
    """The run of a checkpoint's name, or weights/NAME of adopted weights."""
    parts = ancestor.split("/")
    return "/".join(parts[:2]) if parts[0] == "weights" else parts[0]


def _is_trained(lake: Lake, kind: str) -> bool:
    try:
        with lake.writer(kind):
            return False
    except LakeBusy:
        return True


def _kind_of(path: str) -> str:
    return path.split("/")[1].partition("-")[0]


def _object(lake: Lake, path: str) -> dict[str, Any]:
    """A JSON file of the lake that holds an object. Raises CorruptFile."""
    try:
        fields = parse_json(lake.read_bytes(path))
    except ValueError as error:
        raise CorruptFile(f"{lake.full(path)} is not JSON ({reason_of(error)}); delete its folder") from error
    if not isinstance(fields, dict):
        raise CorruptFile(f"{lake.full(path)} is no JSON object; delete its folder")
    return fields


def _read(data: bytes, shown: str) -> dict[str, Any]:
    try:
        record = parse_json(data)
        return {
            **record,
            "run": str(record["run"]),
            "step": int(record.get("step", 0)),
            "dataset": str(record["dataset"]),
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CorruptFile(
            f"{shown} does not name the dataset it was trained on ({error}); delete its folder"
        ) from error
