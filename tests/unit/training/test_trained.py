"""What is known of checkpoints without loading them: where they came from, and what older versions left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sp_data.errors import StageNotDone
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.training.trained import TrainedCheckpoint, best_folders, lineage


def test_what_an_older_version_trained_is_said_to_be_trained_again() -> None:
    old = Manifest.model_construct(stage="decoder", details={"run": "decoder-1f0c55ab", "best": {"folder": "runs/…"}})
    with pytest.raises(StageNotDone, match=r"older version of sp-data.*train the decoder again"):
        best_folders(old)


def test_adopted_weights_pass_on_what_they_have_seen(tmp_path: Path) -> None:
    """run c began with weights that were a checkpoint of run a, which began from scratch."""
    lake = Lake(str(tmp_path), "demo")
    for run, dataset in (("prior-a", "of-a"), ("prior-c", "of-c")):
        lake.write_bytes(f"runs/{run}/config.json", json.dumps({"run": run, "dataset": dataset}).encode())
    record = {"name": "mine", "run": "prior-a", "dataset": "of-a"}
    lake.write_bytes("weights/mine/adopted.json", json.dumps(record).encode())
    elsewhere = {"name": "theirs", "run": "prior-x", "dataset": "of-x"}
    lake.write_bytes("weights/theirs/adopted.json", json.dumps(elsewhere).encode())
    checkpoints = [
        TrainedCheckpoint("prior-c", 5, "of-c", "weights/mine/0123456789abcdef"),
        TrainedCheckpoint("prior-d", 5, "of-d", "weights/theirs/0123456789abcdef"),
        TrainedCheckpoint("prior-e", 5, "of-e", "prior-c/step-00000005/0123456789abcdef"),
    ]
    assert lineage(lake, checkpoints) == {
        "prior-c": {"of-c", "of-a"},
        "prior-d": {"of-d", "of-x"},
        "prior-e": {"of-e", "of-c", "of-a"},
        "weights/mine": {"of-a"},
        "weights/theirs": {"of-x"},
    }
