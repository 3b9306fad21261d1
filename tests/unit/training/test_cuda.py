"""What only a GPU can show: it computes what the CPU does, micro-batches do too, and no step waits for it.

`make gpu` runs these where training runs; conftest.py leaves them out where there is no GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from sp_data.lake import Lake
from sp_data.recipe import Decoder, Prior
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.decoder import UnetTask, draw
from sp_data.training.draws import Draws
from sp_data.training.job import prepare
from sp_data.training.loop.loop import Loop
from sp_data.training.prior import PriorTask
from sp_data.training.seeds import seed_all
from sp_data.training.task import Batch, Task, tensor

pytestmark = pytest.mark.cuda

DEVICE = torch.device("cuda")
BATCH, DIM = 4, 64
UNET = {
    "dim": 32,
    "dim_mults": [1, 2],
    "cond_dim": 48,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 32,
    "self_attn": [False, True],
}
TRAINING = {"batch_size": BATCH, "precision": "fp32", "lr_warmup_steps": 0}
DECODER = Decoder.model_validate(
    {
        **TRAINING,
        "unets": [
            {**UNET, "image_size_px": 32, "text_encodings": True},
            {**UNET, "image_size_px": 64, "random_crop_px": 32},
        ],
    }
)
PRIOR = Prior.model_validate({**TRAINING, "depth": 2, "heads": 2, "dim_head": 32, "dropout": 0.0})


class DrawnOnTheCpu(Draws):
    """A GPU's generator gives other numbers than a CPU's."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(("step", 0), BATCH, None, torch.device("cpu"))
        self.target = device

    def normal(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        return super().normal(name, shape).to(self.target)

    def uniform(self, name: str) -> torch.Tensor:
        return super().uniform(name).to(self.target)

    def integers(self, name: str, high: int) -> torch.Tensor:
        return super().integers(name, high).to(self.target)


def make_task(name: str) -> Task:
    seed_all("weights")
    task = PriorTask(PRIOR, DIM) if name == "prior" else UnetTask(DECODER, int(name[-1]), DIM)
    for weight in task.network.parameters():
        # A fresh network's last layer is zero, and would hide what the others compute.
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return task


def make_batch(device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(3)
    embeds = torch.nn.functional.normalize(torch.randn(2, BATCH, DIM, generator=generator), dim=-1)
    batch = {
        "image": torch.rand(BATCH, 3, 64, 64, generator=generator),
        "image_embed": embeds[0],
        "text_embed": embeds[1],
        "text_encodings": torch.randn(BATCH, 77, DIM, generator=generator),
    }
    return {name: value.to(device) for name, value in batch.items()}


def make_loop(task: Task, folder: Path, micro_batch_size: int = BATCH) -> Loop:
    template = Checkpoint.model_construct(kind=task.kind, run="cuda", files=())  # type: ignore[call-arg]
    settings = PRIOR if isinstance(task, PriorTask) else DECODER.training_of(task.number)  # type: ignore[attr-defined]
    lake = Lake(str(folder), "cuda")
    return Loop(task, settings, template, lake, [], [], Accelerator(), micro_batch_size, lambda _: None)  # type: ignore[arg-type]


def gradient(task: Task) -> torch.Tensor:
    gradients = [weight.grad for weight in task.network.parameters() if weight.grad is not None]
    return torch.cat([gradient.flatten().double().cpu() for gradient in gradients])


def difference(own: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the norm of what is expected."""
    return float((own - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["prior", "unet 1", "unet 2"])
def test_loss_and_gradients_are_those_of_the_cpu(name: str) -> None:
    task = make_task(name)
    results = []
    for device in (torch.device("cpu"), DEVICE):
        copied = copy.deepcopy(task)
        copied.model.to(device)
        if device == DEVICE:
            prepare(copied, PRIOR)
        loss = copied.loss(make_batch(device), DrawnOnTheCpu(device))
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((float(loss.detach()), gradient(copied)))
    (cpu_loss, cpu_gradient), (own_loss, own) = results
    assert own_loss == pytest.approx(cpu_loss, rel=1e-4)
    assert difference(own, cpu_gradient) <= 1e-3


def test_micro_batches_give_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    whole, parts = make_loop(make_task("unet 1"), tmp_path), make_loop(make_task("unet 1"), tmp_path, 3)
    for loop in (whole, parts):
        loop.backward(make_batch(DEVICE), step=0)
    assert difference(gradient(parts.task), gradient(whole.task)) <= 1e-3


@pytest.mark.parametrize("name", ["prior", "unet 1", "unet 2"])
def test_no_step_waits_for_the_gpu(name: str, tmp_path: Path) -> None:
    loop, batch = make_loop(make_task(name), tmp_path), make_batch(DEVICE)
    # The first steps choose kernels and make the optimizer's state.
    for step in range(2):
        loop.step(step, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        # An upsampler's small pictures are blurred in some of them.
        for step in range(2, 10):
            loop.step(step, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_unet_draws_on_the_gpu() -> None:
    task = make_task("unet 1")
    task.model.to(DEVICE).eval()
    batch = make_batch(DEVICE)
    with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
        drawn = draw(task.model, tensor(batch, "image_embed"), tensor(batch, "text_encodings"), steps=3, cond_scale=1.7)
    assert drawn.shape == (BATCH, 3, 32, 32)
    assert torch.isfinite(drawn).all()
