"""What a training is told that it takes, against what it takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from sp_data.errors import StageError
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.lora import add_lora
from sp_data.training.memory.cuda_autocast import cuda_autocast
from sp_data.training.memory.estimate import (
    Memory,
    _LiveBytes,
    choose_micro_batch,
    estimate,
    largest_micro_batch,
    sentence,
)

Build = Callable[[], nn.Module]
Loss = Callable[[nn.Module, int], torch.Tensor]


def unet(checkpointing: bool = False) -> nn.Module:
    """A unet of 16 px with every kind of layer that LAION's have."""
    module = dalle2_module()
    made = module.Unet(
        dim=16,
        dim_mults=(1, 2),
        cond_dim=32,
        image_embed_dim=24,
        text_embed_dim=24,
        cond_on_text_encodings=True,
        num_resnet_blocks=1,
        attn_heads=2,
        attn_dim_head=16,
        self_attn=(False, True),
        sparse_attn=True,
        memory_efficient=True,
        checkpoint_during_training=checkpointing,
    )
    decoder: nn.Module = module.Decoder(made, image_size=16, learned_variance=True)
    return decoder


def unet_loss(model: nn.Module, num_pictures: int) -> torch.Tensor:
    loss: torch.Tensor = model(
        torch.rand(num_pictures, 3, 16, 16),
        image_embed=torch.randn(num_pictures, 24),
        text_encodings=torch.randn(num_pictures, 77, 24),
    )
    return loss


def prior() -> nn.Module:
    module = dalle2_module()
    net = module.DiffusionPriorNetwork(dim=32, depth=2, heads=2, dim_head=16, num_timesteps=50, max_text_len=77)
    made: nn.Module = module.DiffusionPrior(
        net=net, clip=None, image_embed_dim=32, condition_on_text_encodings=True, timesteps=50
    )
    return made


def prior_loss(model: nn.Module, num_pictures: int) -> torch.Tensor:
    loss: torch.Tensor = model(
        text_embed=torch.randn(num_pictures, 32),
        text_encodings=torch.randn(num_pictures, 77, 32),
        image_embed=torch.randn(num_pictures, 32),
    )
    return loss


def stack(width: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


def stack_loss(model: nn.Module, num_pictures: int) -> torch.Tensor:
    loss: torch.Tensor = model(torch.rand(num_pictures, 64)).square().mean()
    return loss


told = partial(estimate, micro_batch_size=8, precision="fp32", use_8bit_adam=False, device="cpu")


def step(model: nn.Module, loss: Loss, num_pictures: int, is_bf16: bool = False) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        value = loss(model, num_pictures)
    value.backward()  # type: ignore[no-untyped-call]


def allocated_at_peak(build: Build, loss: Loss, num_pictures: int, is_bf16: bool) -> int:
    """Bytes that torch's allocator hands out in one step of a real model, beside weights and gradients."""
    model = build().train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step(model, loss, num_pictures, is_bf16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, loss, num_pictures, is_bf16)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize(
    ("build", "loss"),
    [(unet, unet_loss), (partial(unet, checkpointing=True), unet_loss), (prior, prior_loss), (stack, stack_loss)],
    ids=["unet", "checkpointed unet", "prior", "linear layers"],
)
def test_activations_are_what_the_allocator_hands_out(build: Build, loss: Loss, is_bf16: bool) -> None:
    memory = told(build, loss, precision="bf16" if is_bf16 else "fp32")

    for num_pictures in (2, 8):
        allocated = allocated_at_peak(build, loss, num_pictures, is_bf16)
        assert memory.at(num_pictures).activations == pytest.approx(allocated, rel=0.05)


def test_weights_gradients_and_optimizer_are_counted_to_the_byte() -> None:
    model = unet()
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, unet_loss, 2)
    optimizer.step()
    averages = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    memory = told(unet, unet_loss)

    assert memory.weights == sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    assert memory.gradients == sum(gradient.nbytes for gradient in gradients)
    assert memory.optimizer == sum(average.nbytes for average in averages)
    assert memory.ema == sum(parameter.nbytes for parameter in model.parameters())
    assert memory.num_trained == sum(parameter.numel() for parameter in model.parameters())


def test_only_what_is_trained_costs_gradients_and_averages() -> None:
    memory = told(stack, stack_loss, trainable=lambda model: model.get_submodule("2").parameters())

    assert memory.weights == 4 * (2 * 64 * 256 + 256 + 64)
    assert memory.gradients == memory.ema == memory.optimizer // 2 == 4 * (64 * 256 + 64)
    assert memory.at(8).activations < told(stack, stack_loss).activations


def test_a_weight_that_the_loss_does_not_reach_has_no_gradient() -> None:
    memory = told(stack, lambda model, num_pictures: stack_loss(model.get_submodule("0"), num_pictures))

    assert memory.gradients == 4 * (64 * 256 + 256)
    assert memory.ema == memory.weights


def test_lora_trains_its_matrices_alone() -> None:
    def adapted() -> nn.Module:
        model = stack()
        add_lora(model, rank=4, alpha=4)
        return model

    memory = told(adapted, stack_loss)

    assert memory.num_trained == 2 * 4 * (64 + 256)
    assert memory.gradients == memory.ema == memory.optimizer // 2 == 4 * memory.num_trained
    assert memory.weights == told(stack, stack_loss).weights + memory.gradients


def test_eight_bit_adam_takes_two_bytes_and_a_scale_for_each_256() -> None:
    memory = told(stack, stack_loss, use_8bit_adam=True)

    assert memory.optimizer == 2 * (64 * 256 * 2 + 64 * 256 // 256 * 8) + 8 * (256 + 64)


def test_distributed_training_keeps_gradients_twice() -> None:
    assert told(stack, stack_loss, is_distributed=True).gradients == 2 * told(stack, stack_loss).gradients


def test_without_an_average_none_is_counted() -> None:
    assert told(stack, stack_loss, has_ema=False).ema == 0


def test_gradient_checkpointing_saves_activations_alone() -> None:
    whole, checkpointed = (told(partial(unet, checkpointing=on), unet_loss) for on in (False, True))

    assert checkpointed.activations < 0.7 * whole.activations
    assert checkpointed.total - checkpointed.activations == whole.total - whole.activations


def test_bfloat16_keeps_a_copy_of_the_weights() -> None:
    memory = told(stack, stack_loss, precision="bf16")

    assert memory.at(1).activations >= 2 * 2 * 64 * 256


def kept_by_forward(build: Build, loss: Loss, device: str) -> int:
    """Bytes that a forward pass in bfloat16 keeps on a fake device."""
    with FakeTensorMode(), torch.device(device):
        model = build().train()
        live = _LiveBytes([*model.parameters(), *model.buffers()])
        # torch.autocast turns itself off where there is no GPU.
        torch.set_autocast_enabled(device, True)
        torch.set_autocast_dtype(device, torch.bfloat16)
        torch.autocast_increment_nesting()
        try:
            with live:
                kept = loss(model, 3)
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled(device, False)
        assert kept.requires_grad
        return live.timeline[-1]


@pytest.mark.parametrize(("build", "loss"), [(unet, unet_loss), (prior, prior_loss)])
def test_a_cuda_device_keeps_in_float32_what_its_own_autocast_does(build: Build, loss: Loss) -> None:
    with cuda_autocast():
        emulated = kept_by_forward(build, loss, "cpu")

    assert emulated == pytest.approx(kept_by_forward(build, loss, "cuda"), rel=0.005)
    assert emulated > kept_by_forward(build, loss, "cpu")


def test_an_estimate_leaves_random_numbers_and_autocast_as_they_were() -> None:
    numbers, seeds = torch.random.get_rng_state(), random.getstate()

    told(unet, unet_loss, precision="bf16", device="cuda")

    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert random.getstate() == seeds
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.ones(2, 2, dtype=torch.bfloat16).softmax(0).dtype == torch.bfloat16


def test_a_model_whose_operations_depend_on_the_batch_is_refused() -> None:
    def one_by_one(model: nn.Module, num_pictures: int) -> torch.Tensor:
        return torch.stack([stack_loss(model, 1) for _ in range(num_pictures)]).mean()

    with pytest.raises(StageError, match="do not depend on the batch"):
        told(stack, one_by_one)


def memory_of(fixed: int, per_picture: int, optimizer: int = 80) -> Memory:
    """Ten parameters; activations of `fixed` + `per_picture` a picture."""
    return Memory(
        weights=40,
        gradients=40,
        optimizer=optimizer,
        ema=40,
        activations=fixed + per_picture,
        micro_batch_size=1,
        num_trained=10,
        lines=((fixed, per_picture), (fixed + 50, 0)),
    )


@pytest.mark.parametrize(
    ("free_for_activations", "largest"),
    [(3200, 32), (3199, 16), (1600, 16), (1599, 11), (1100, 11), (1099, 8), (100, 1), (99, 0)],
)
def test_the_largest_micro_batch_that_fits_divides_the_batch_evenly(free_for_activations: int, largest: int) -> None:
    assert largest_micro_batch(memory_of(0, 100), 200 + free_for_activations, 32) == largest


def test_the_peak_is_that_of_whichever_operation_is_the_largest_at_this_batch() -> None:
    memory = memory_of(0, 10)

    assert [memory.at(num_pictures).activations for num_pictures in (1, 5, 6)] == [50, 50, 60]


def test_the_micro_batch_asked_for_is_taken_and_auto_takes_the_largest() -> None:
    chosen = partial(choose_micro_batch, memory_of(0, 100), 1000, name="prior", batch_size=32)

    assert chosen(requested="auto") == 8
    assert chosen(requested=32) == 32


@pytest.mark.parametrize("requested", ["auto", 1])
def test_a_training_that_fits_with_no_micro_batch_is_refused_and_told_what_to_change(requested: Any) -> None:
    with pytest.raises(StageError) as caught:
        choose_micro_batch(memory_of(0, 100), 299, name="decoder.unets.1", batch_size=32, requested=requested)

    message = str(caught.value)
    options = ("gradient_checkpointing=true", "lora_rank=16", "use_8bit_adam=true")
    assert all(f"decoder.unets.1.{option}" in message for option in options)
    assert "a smaller unet" in message


def test_an_eight_bit_optimizer_is_not_advised_twice() -> None:
    with pytest.raises(StageError) as caught:
        choose_micro_batch(memory_of(0, 100, optimizer=20), 99, name="prior", batch_size=4, requested="auto")

    assert "use_8bit_adam" not in str(caught.value)
    assert "a smaller prior" in str(caught.value)


def test_the_log_says_what_a_step_takes_and_what_would_fit() -> None:
    memory = Memory(4_000_000_000, 4_000_000_000, 8_000_000_000, 4_000_000_000, 0, 1, 10**9, ((0, 10**9),)).at(16)

    line = sentence(memory, 30_000_000_000, name="decoder", batch_size=32)

    assert line == (
        "decoder: 1,000.0 million parameters are trained; a step takes 36.0 GB: weights 4.0 GB, gradients 4.0 GB, "
        "optimizer 8.0 GB, average 4.0 GB, activations 16.0 GB (micro-batch of 16), of 30.0 GB: this may not fit; the "
        "largest micro-batch that fits is 8 of 32"
    )
    assert "may not fit" not in sentence(memory, 36_000_000_000, name="decoder", batch_size=32)
