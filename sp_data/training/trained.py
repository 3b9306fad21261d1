"""Which dataset each run and each checkpoint was trained on, by their own records; needs no torch.

runs/decoder-1f0c55ab/config.json                              {"kind": "decoder", "dataset": "3f2a…", ...}
runs/decoder-1f0c55ab/checkpoints/step-00000500/checkpoint.json
weights/mine/adopted.json                                      a checkpoint of a run, adopted under a name
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import CorruptFile, LakeBusy, StageNotDone, reason_of
from sp_data.lake import Lake
from sp_data.manifest import Manifest

CONFIG, RECORD, ADOPTED = "config.json", "checkpoint.json", "adopted.json"
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
    adopted: str = ""
    """'weights/NAME' of one that was adopted, whose record does not tell the step; empty for one of a run."""

    @property
    def folder(self) -> str:
        return self.adopted or checkpoint_folder(self.run, self.step)

    @property
    def node(self) -> str:
        """What `lineage` calls it: its run, or 'weights/NAME'."""
        return self.adopted or self.run

    def __str__(self) -> str:
        return f"{self.adopted} (of {self.run})" if self.adopted else f"{self.run} step {self.step:,}"


def checkpoint_folder(run: str, step: int) -> str:
    """Where a checkpoint lies in the lake."""
    return f"runs/{run}/checkpoints/step-{step:08d}"


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


def adopted_checkpoints(lake: Lake) -> list[TrainedCheckpoint]:
    """Checkpoints of a run, of this lake or another one, that were adopted, by name. Raises CorruptFile."""
    adopted = []
    for path in lake.list("weights"):
        if path.endswith(f"/{ADOPTED}"):
            record = _object(lake, path)
            if record.get("run") or record.get("dataset"):
                network = f"unet{record['unet']}" if record.get("unet") else str(record.get("kind", ""))
                node = path.removesuffix(f"/{ADOPTED}")
                adopted.append(
                    TrainedCheckpoint(
                        str(record.get("run", "")), 0, str(record.get("dataset", "")), "", network, adopted=node
                    )
                )
    return sorted(adopted, key=lambda checkpoint: checkpoint.adopted)


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
    """Run, or 'weights/NAME' of adopted weights -> digests of all datasets that they were trained on: their own, and
    those of their ancestors. `checkpoints`: those of the lake's runs."""
    dataset_of = {checkpoint.run: checkpoint.dataset for checkpoint in checkpoints}
    for path in lake.list("runs"):
        # The checkpoint that a run began with may be removed by now; the configuration of its run is not.
        if path.endswith(f"/{CONFIG}") and path.count("/") == 2:
            dataset_of.setdefault(path.split("/")[1], _read(lake.read_bytes(path), lake.full(path))["dataset"])
    parent_of = {checkpoint.run: _parent(checkpoint.ancestor) for checkpoint in checkpoints if checkpoint.ancestor}
    adopted = adopted_checkpoints(lake)
    for checkpoint in adopted:
        # It stands between a run and the checkpoint that it was.
        if checkpoint.dataset:
            dataset_of[checkpoint.node] = checkpoint.dataset
        if checkpoint.run:
            parent_of[checkpoint.node] = checkpoint.run
    datasets: dict[str, set[str]] = {}
    for node in {checkpoint.node for checkpoint in (*checkpoints, *adopted)}:
        line: list[str] = []
        current: str | None = node
        while current is not None and current not in line:
            line.append(current)
            current = parent_of.get(current)
        datasets[node] = {dataset_of[ancestor] for ancestor in line if ancestor in dataset_of}
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
