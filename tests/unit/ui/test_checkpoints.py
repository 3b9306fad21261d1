"""What there is to draw with, by the records of the checkpoints alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sp_data.lake import Lake
from sp_data.ui.checkpoints import (
    BEST,
    NO_DROPS,
    OLD_PRIOR,
    UNCONDITIONED,
    abilities,
    chosen,
    known_checkpoints,
    networks_of,
)

PRIOR = {"cond_drop_prob": 0.1, "timesteps": 1000}
DRAWS = {"unet": {"cond_on_image_embeds": True}, "image_cond_drop_prob": 0.1, "timesteps": 1000}
ENLARGES = {"unet": {"cond_on_image_embeds": False, "cond_on_text_encodings": False}, "image_cond_drop_prob": 0.1}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


def _save(
    lake: Lake, run: str, step: int, model: dict[str, Any], *, unet: int | None = None, val_loss: float | None = 0.5
) -> str:
    folder = f"runs/{run}/checkpoints/step-{step:08d}"
    record = {
        "kind": run.partition("-")[0],
        "unet": unet,
        "run": run,
        "step": step,
        "loss": 0.1,
        "val_loss": val_loss,
        "made_at": f"2026-11-26T00:{step:02d}:00",
        "dataset": "3f2a",
        "model": model,
    }
    lake.write_bytes(f"{folder}/checkpoint.json", json.dumps(record).encode())
    return folder


def test_checkpoints_are_listed_by_network_and_the_latest_first(lake: Lake) -> None:
    _save(lake, "decoder-unet2-b", 1, ENLARGES, unet=2)
    _save(lake, "decoder-unet1-a", 2, DRAWS, unet=1)
    _save(lake, "decoder-unet1-a", 4, DRAWS, unet=1)
    _save(lake, "prior-old", 9, PRIOR)
    _save(lake, "prior-new", 10, PRIOR)
    lake.write_bytes("runs/prior-broken/checkpoints/step-00000001/checkpoint.json", b"{")
    listed = known_checkpoints(lake)
    assert [(one.network, one.run, one.step) for one in listed] == [
        ("prior", "prior-new", 10),
        ("prior", "prior-old", 9),
        ("unet 1", "decoder-unet1-a", 4),
        ("unet 1", "decoder-unet1-a", 2),
        ("unet 2", "decoder-unet2-b", 1),
    ]
    assert networks_of(listed) == ["prior", "unet 1", "unet 2"]


def test_a_chosen_checkpoint_draws_and_else_the_best(lake: Lake) -> None:
    best = _save(lake, "prior-a", 1, PRIOR, val_loss=0.1)
    last = _save(lake, "prior-a", 2, PRIOR, val_loss=0.2)
    listed = known_checkpoints(lake)
    assert chosen(listed, (BEST,), [])["prior"].folder == best
    assert chosen(listed, (BEST,), [last])["prior"].folder == last
    assert chosen(listed, (best,), [last])["prior"].folder == best


def test_adopted_weights_can_be_chosen_and_are_never_taken_unasked(lake: Lake) -> None:
    record = {"name": "laion-prior", "unet": None, "legacy": True, "config": PRIOR, "dataset": ""}
    lake.write_bytes("weights/laion-prior/adopted.json", json.dumps(record).encode())
    assert chosen(known_checkpoints(lake), (BEST,), []) == {}
    own = _save(lake, "prior-a", 1, PRIOR)
    listed = known_checkpoints(lake)
    assert [str(one) for one in listed] == ["prior-a step 1, validation 0.5000", "weights/laion-prior"]
    assert chosen(listed, (BEST,), [])["prior"].folder == own
    laion = chosen(listed, ("weights/laion-prior",), [])
    assert laion["prior"].is_adopted
    assert abilities(laion).no_prior_guidance == OLD_PRIOR


def test_a_unet_that_the_finished_decoder_does_not_have_does_not_draw(lake: Lake) -> None:
    finished = _save(lake, "decoder-unet1-new", 3, DRAWS, unet=1)
    older = _save(lake, "decoder-unet2-old", 1, ENLARGES, unet=2)
    listed = known_checkpoints(lake)
    assert list(chosen(listed, (BEST,), [finished])) == ["unet 1"]
    assert list(chosen(listed, (older,), [finished])) == ["unet 1", "unet 2"]


def test_what_checkpoints_cannot_do_has_a_reason(lake: Lake) -> None:
    _save(lake, "prior-a", 1, PRIOR)
    _save(lake, "decoder-unet1-a", 1, DRAWS, unet=1)
    _save(lake, "decoder-unet2-a", 1, ENLARGES, unet=2)
    by_network = chosen(known_checkpoints(lake), (), [])
    able = abilities(by_network)
    assert (able.no_prior_guidance, able.no_decoder_guidance) == ("", "")
    assert able.no_upsampler_guidance == UNCONDITIONED
    assert (able.num_unets, able.reads_words, able.timesteps) == (2, False, 1000)

    _save(lake, "prior-a", 1, {**PRIOR, "layout": "1.0"})
    _save(lake, "decoder-unet1-a", 1, {**DRAWS, "image_cond_drop_prob": 0}, unet=1)
    _save(lake, "decoder-unet2-a", 1, {**ENLARGES, "unet": {"cond_on_text_encodings": True}}, unet=2)
    able = abilities(chosen(known_checkpoints(lake), (), []))
    assert able.no_prior_guidance == OLD_PRIOR
    assert (able.no_decoder_guidance, able.no_upsampler_guidance) == (NO_DROPS, NO_DROPS)
    assert able.reads_words

    _save(lake, "prior-a", 1, {**PRIOR, "cond_drop_prob": 0.0})
    assert abilities(chosen(known_checkpoints(lake), (), [])).no_prior_guidance == NO_DROPS


def test_an_empty_lake_has_no_reasons(lake: Lake) -> None:
    assert known_checkpoints(lake) == []
    assert abilities({}).num_unets == 1
