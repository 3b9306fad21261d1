"""Step for step, the loop does what dalle2-pytorch's trainers do: equal weights, batches and noise, equal results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sp_data.lake import Lake
from sp_data.recipe import Decoder, Prior, Training
from sp_data.training import decoder as ours
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.decoder import UnetTask
from sp_data.training.draws import Draws
from sp_data.training.loop.loop import Loop
from sp_data.training.models import build_decoder, unet_config
from sp_data.training.prior import PriorTask
from sp_data.training.seeds import seed_all
from sp_data.training.task import Batch, Task

STEPS, BATCH, DIM = 20, 4, 64
SMALL = {
    "dim": 16,
    "dim_mults": [1, 2],
    "cond_dim": 24,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 16,
    "self_attn": [False, True],
    "text_encodings": True,
}
DEFAULTS = {"batch_size": BATCH, "lr_warmup_steps": 0, "precision": "fp32"}
"""Of the trainers, where the recipe's differ: no warm-up."""


class PeerDraws(TorchFunctionMode):
    """dalle2-pytorch draws what ours drew: times where it asks for integers, noise where it asks for noise."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.randint:
            return self.draws.integers("times", args[1])
        if function is torch.randn_like:
            return self.draws.normal("noise", args[0].shape[1:])
        return function(*args, **kwargs)


def batches(size_px: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        embeds = [torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator), dim=-1) for _ in range(2)]
        yield {
            "image": torch.rand(BATCH, 3, size_px, size_px, generator=generator),
            "image_embed": embeds[0],
            "text_embed": embeds[1],
            "text_encodings": torch.randn(BATCH, 77, DIM, generator=generator),
        }


def loop_of(task: Task, settings: Training, folder: Path) -> Loop:
    from accelerate import Accelerator

    template = Checkpoint.model_construct(kind=task.kind, run="parity", files=())
    return Loop(
        task, settings, template, Lake(str(folder), "parity"), [], [], Accelerator(cpu=True), BATCH, lambda _: None
    )  # type: ignore[arg-type]


def compare(
    loop: Loop, network: torch.nn.Module, size_px: int, peer_step: Callable[[Batch], float]
) -> tuple[float, float]:
    """The greatest difference of a loss, and the difference of all weights relative to their size."""
    worst_loss = 0.0
    for step, batch in enumerate(batches(size_px)):
        draws = Draws((loop.settings.seed, "step", step), BATCH, None, torch.device("cpu"))
        with PeerDraws(draws), draws.deciding_what_is_dropped():
            peer_loss = peer_step(copy.deepcopy(batch))
        worst_loss = max(worst_loss, abs(peer_loss - float(loop.step(step, batch))))
    pairs = list(zip(loop.task.network.parameters(), network.parameters(), strict=True))
    apart = sum(float((own - peer).detach().square().sum()) for own, peer in pairs) ** 0.5
    size = sum(float(peer.detach().square().sum()) for _, peer in pairs) ** 0.5
    return worst_loss, apart / size


def test_the_prior_is_trained_as_by_the_diffusion_prior_trainer(tmp_path: Path) -> None:
    from dalle2_pytorch.trainer import DiffusionPriorTrainer

    settings = Prior.model_validate(
        {
            **DEFAULTS,
            "depth": 2,
            "heads": 4,
            "dim_head": 16,
            "dropout": 0.0,
            "learning_rate": 3e-4,
            "max_grad_norm": None,
        }
    )
    seed_all("weights")
    task = PriorTask(settings, DIM)
    trainer = DiffusionPriorTrainer(copy.deepcopy(task.model))
    loop = loop_of(task, settings, tmp_path)

    def peer_step(batch: Batch) -> float:
        loss = trainer(**{name: batch[name] for name in ("text_embed", "image_embed", "text_encodings")})
        trainer.update()
        return float(loss)

    loss, weights = compare(loop, trainer.diffusion_prior, 16, peer_step)
    assert loss <= 1e-6
    assert weights <= 1e-6


@pytest.mark.parametrize("number", [1, 2])
def test_a_unet_is_trained_as_by_the_decoder_trainer(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dalle2_pytorch.trainer import DecoderTrainer

    sizes = [32] if number == 1 else [16, 32]
    settings = Decoder.model_validate(
        {**DEFAULTS, "unets": [{**SMALL, "image_size_px": size} for size in sizes], "learning_rate": 1e-4}
    )
    seed_all("weights")
    task = UnetTask(settings, number, DIM)
    peer = build_decoder([unet_config(settings, position, DIM) for position in range(1, number + 1)])
    peer.unets[number - 1].load_state_dict(task.network.state_dict())
    trainer = DecoderTrainer(peer)
    loop = loop_of(task, settings, tmp_path)
    if number == 2:
        use_our_filter(monkeypatch, lambda: draws_now[0])
    draws_now: list[Draws] = []

    def peer_step(batch: Batch) -> float:
        draws_now[:] = [
            Draws((settings.seed, "step", int(trainer.steps[number - 1])), BATCH, None, torch.device("cpu"))
        ]
        loss = trainer(
            batch["image"],
            image_embed=batch["image_embed"],
            text_encodings=batch["text_encodings"],
            unet_number=number,
        )
        trainer.update(unet_number=number)
        return float(loss)

    loss, weights = compare(loop, trainer.decoder.unets[number - 1], 32, peer_step)
    assert loss <= 1e-6
    assert weights <= 1e-6


def use_our_filter(monkeypatch: pytest.MonkeyPatch, draws: Callable[[], Draws]) -> None:
    """Let dalle2-pytorch's LowresConditioner make pictures small with an antialiasing filter, and blur when ours
    does; without, it takes every n-th pixel."""
    module = dalle2_module()
    original = module.resize_image_to

    def resize(image: torch.Tensor, size: int, **options: Any) -> torch.Tensor:
        if size < image.shape[-1]:
            return ours.resized(image, size)
        resized: torch.Tensor = original(image, size, **options)
        return resized

    monkeypatch.setattr(module, "resize_image_to", resize)
    monkeypatch.setattr(module.random, "random", lambda: draws().scalar("blur"))
