"""The demo at its full size: its pictures match their prompts, and after training on shifted rows they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sp_data import manifest as manifests
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, TRAINING_STAGES, run_stage
from sp_data.recipe import demo


@pytest.mark.proof
def test_the_judge_tells_a_dataset_in_order_from_one_that_is_shifted_by_a_row(tmp_path: Path) -> None:
    lake, recipe = Lake(str(tmp_path), "demo"), demo()
    for stage in (*DATASET_STAGES, *TRAINING_STAGES):
        run_stage(stage, recipe, lake)
    judged = manifests.latest(lake, "judge")
    assert judged is not None
    for pairs in ("seen", "unseen"):
        assert judged.details["table"][pairs]["n"] == 32
        assert judged.details["table"][pairs]["coat"] >= 0.8
        assert judged.details["table"][pairs]["hat"] >= 0.8
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    for shard in verified.details["shards"]:
        path = Path(lake.full(shard["img_emb"]["path"]))
        np.save(path, np.roll(np.load(path), 1, axis=0))
    for path in lake.list("runs") + [f"manifests/{stage}/latest.json" for stage in TRAINING_STAGES]:
        lake.remove(str(path))
    for stage in TRAINING_STAGES:
        for path in lake.list(f"manifests/{stage}"):
            lake.remove(str(path))
        assert run_stage(stage, recipe, lake).state == "done"
    shifted = manifests.latest(lake, "judge")
    assert shifted is not None
    assert shifted.details["table"]["all"]["coat"] <= 0.25
    assert shifted.details["table"]["all"]["hat"] <= 0.25
