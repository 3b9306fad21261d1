"""The stock recipe fits the GPU that its docstring names: worked out by fake tensors, without a GPU."""

from __future__ import annotations

import logging

import pytest

from sp_data.recipe import southpark
from sp_data.training.job import TrainingJob
from sp_data.training.memory.micro_batch import memory_of
from sp_data.training.models import OLD_LAYOUT

log = logging.getLogger(__name__)

GB = 10**9


@pytest.mark.proof
@pytest.mark.parametrize("unet", [None, 1, 2])
def test_each_network_of_southpark_takes_less_than_43_gb_with_its_whole_batch(unet: int | None) -> None:
    recipe = southpark()
    job = TrainingJob(
        kind="prior" if unet is None else "decoder",
        unet=unet,
        recipe=recipe,
        lake="",
        dataset="",
        run="",
        resume=None,
        forget_after=None,
        ancestor="",
    )
    memory = memory_of(job, OLD_LAYOUT, "cuda").at(job.settings.batch_size)
    log.info("%s", memory)
    assert memory.num_trained == {None: 101_756_544, 1: 982_610_118, 2: 632_649_228}[unet], "all but rotary angles"
    assert memory.total < 43 * GB
