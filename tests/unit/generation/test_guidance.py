"""Guidance in one pass is dalle2-pytorch's guidance in two, at half the calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_networks import DIM, condition, random_decoder, random_prior, unet_config

from sp_data.generation.guidance import GuidedUnet, guided_prior, is_conditioned
from sp_data.generation.noise import NoiseByPicture
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.prior import guess

ROWS, SCALE = 3, 2.5
CLOSE = 1e-5
WORDS = {"cond_on_text_encodings": True}


@contextlib.contextmanager
def counted(network: Any) -> Iterator[list[int]]:
    """The number of rows of each forward pass of a network meanwhile."""
    rows: list[int] = []
    forward = network.forward

    def counting(x: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        rows.append(len(x))
        return forward(x, *arguments, **named)

    network.forward = counting
    try:
        yield rows
    finally:
        del network.forward


def unet_and_inputs(**changes: Any) -> tuple[Any, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """An unet, noisy pictures, their times, and what else it reads."""
    number = 2 if changes.get("lowres_cond") else 1
    config = unet_config(number, unet=changes)
    unet = random_decoder(*[unet_config(), config][2 - number :]).unets[-1]
    size, rows = config["image_size"], condition(ROWS)
    generator = torch.Generator().manual_seed(1)
    inputs = {"image_embed": rows["image_embed"]}
    if unet.cond_on_text_encodings:
        inputs["text_encodings"] = rows["text_encodings"]
    if unet.lowres_cond:
        inputs["lowres_cond_img"] = torch.randn(ROWS, 3, size, size, generator=generator)
        inputs["lowres_noise_level"] = torch.full((ROWS,), 200)
    if unet.self_cond:
        inputs["self_cond"] = torch.randn(ROWS, 3, size, size, generator=generator)
    return unet, torch.randn(ROWS, 3, size, size, generator=generator), torch.tensor([999, 500, 0]), inputs


CONDITIONED = [
    pytest.param({}, id="by the embedding"),
    pytest.param(WORDS, id="by embedding and words"),
    pytest.param({**WORDS, "cond_on_image_embeds": False}, id="by words alone"),
    pytest.param({"self_cond": True}, id="by its own last guess too"),
    pytest.param({**WORDS, "lowres_cond": True}, id="by words and a small picture"),
]


@pytest.mark.parametrize("changes", CONDITIONED)
def test_one_pass_is_what_two_passes_are(changes: dict[str, Any]) -> None:
    unet, pictures, times, inputs = unet_and_inputs(**changes)
    assert is_conditioned(unet)
    with counted(unet) as passes:
        two = unet.forward_with_cond_scale(pictures, times, cond_scale=SCALE, **inputs)
    assert passes == [ROWS, ROWS]
    with counted(unet) as passes:
        one = GuidedUnet(unet, SCALE).forward_with_cond_scale(pictures, times, **inputs)
    assert passes == [2 * ROWS]
    assert float((one - two).abs().max()) <= CLOSE
    plain = unet.forward(pictures, times, **inputs)
    assert float((one - plain).abs().max()) > 0.01, "guidance changes nothing here, so equality proves nothing"


def test_without_guidance_the_network_runs_once_a_row() -> None:
    unet, pictures, times, inputs = unet_and_inputs()
    with counted(unet) as passes:
        once = GuidedUnet(unet, 1.0).forward_with_cond_scale(pictures, times, cond_scale=7.0, **inputs)
    assert passes == [ROWS]
    assert torch.equal(once, unet.forward(pictures, times, **inputs))


def test_an_upsampler_that_sees_no_condition_is_known_as_such() -> None:
    unet, pictures, times, inputs = unet_and_inputs(lowres_cond=True)
    assert not is_conditioned(unet)
    guided = unet.forward_with_cond_scale(pictures, times, cond_scale=SCALE, **inputs)
    plain = unet.forward(pictures, times, **inputs)
    assert float((guided - plain).abs().max()) <= CLOSE, "so guidance may leave it out"


@pytest.mark.parametrize("changes", [{}, WORDS], ids=["embedding", "words"])
def test_a_negative_prompt_takes_the_place_of_the_null_condition(changes: dict[str, Any]) -> None:
    unet, pictures, times, inputs = unet_and_inputs(**changes)
    others = condition(ROWS, seed=5)
    negative = {name: others[name] for name in inputs}
    toward = unet.forward(pictures, times, **inputs)
    away = unet.forward(pictures, times, **negative)
    guided = GuidedUnet(
        unet, SCALE, negative_embed=negative["image_embed"], negative_encodings=negative.get("text_encodings")
    ).forward_with_cond_scale(pictures, times, **inputs)
    assert float((guided - (away + (toward - away) * SCALE)).abs().max()) <= CLOSE
    with_null = GuidedUnet(unet, SCALE).forward_with_cond_scale(pictures, times, **inputs)
    assert float((guided - with_null).abs().max()) > 0.01


def test_in_bfloat16_it_is_roughly_the_same_and_float32_comes_out() -> None:
    unet, pictures, times, inputs = unet_and_inputs(**WORDS)
    exact = GuidedUnet(unet, SCALE).forward_with_cond_scale(pictures, times, **inputs)
    for scale, expected in ((SCALE, exact), (1.0, unet.forward(pictures, times, **inputs))):
        rough = GuidedUnet(unet, scale, autocast=torch.autocast("cpu", dtype=torch.bfloat16)).forward_with_cond_scale(
            pictures, times, **inputs
        )
        assert rough.dtype == torch.float32
        assert not torch.equal(rough, expected)
        assert float((rough - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("steps", [20, 5], ids=["ddpm", "ddim"])
def test_a_prior_guided_in_one_pass_guesses_what_two_passes_guess(steps: int) -> None:
    model, rows = random_prior(sample_timesteps=steps), condition(ROWS)
    told = {name: rows[name] for name in ("text_embed", "text_encodings")}

    def guessed(**options: Any) -> torch.Tensor:
        with NoiseByPicture("prior", range(ROWS)):
            sampled = model.p_sample_loop((ROWS, DIM), text_cond=told, timesteps=steps, **options)
        return torch.nn.functional.normalize(sampled, dim=-1)

    with counted(model.net) as passes:
        two = guessed(cond_scale=SCALE)
    assert set(passes) == {ROWS}
    num_passes = len(passes)
    steps_told: list[None] = []
    with (
        counted(model.net) as passes,
        guided_prior(model, SCALE, on_step=lambda: steps_told.append(None)),
        NoiseByPicture("prior", range(ROWS)),
    ):
        one = guess(model, told, DIM)
    assert passes == [2 * ROWS] * (num_passes // 2)
    assert len(steps_told) == num_passes // 2
    assert float((one - two).abs().max()) <= CLOSE
    assert float((one - guessed()).abs().max()) > 0.01


def test_a_prior_is_led_away_from_a_negative_prompt() -> None:
    model, rows, others = random_prior(), condition(ROWS), condition(ROWS, seed=5)
    told, negative = ({name: each[name] for name in ("text_embed", "text_encodings")} for each in (rows, others))
    guesses, times = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1)), torch.full((ROWS,), 7)
    toward, away = (model.net.forward(guesses, times, **each) for each in (told, negative))
    with guided_prior(model, SCALE, negative=negative):
        guided = model.net.forward_with_cond_scale(guesses, times, self_cond=None, **told)
    assert float((guided - (away + (toward - away) * SCALE)).abs().max()) <= CLOSE


class Cancelled(Exception):
    pass


def cancel() -> None:
    raise Cancelled


def test_what_fails_on_the_way_leaves_dalle2_pytorch_as_it_was() -> None:
    module, model, rows = dalle2_module(), random_prior(), condition(ROWS)
    original = module.prob_mask_like
    told = {name: rows[name] for name in ("text_embed", "text_encodings")}
    with pytest.raises(Cancelled), guided_prior(model, SCALE, on_step=cancel):
        guess(model, told, DIM)
    assert "forward_with_cond_scale" not in vars(model.net)
    with pytest.raises(RuntimeError), guided_prior(model, SCALE):
        guess(model, {"text_embed": torch.zeros(ROWS, DIM + 1)}, DIM)
    unet, pictures, times, inputs = unet_and_inputs()
    with pytest.raises(Cancelled):
        GuidedUnet(unet, SCALE, on_step=cancel).forward_with_cond_scale(pictures, times, **inputs)
    with pytest.raises(RuntimeError):
        GuidedUnet(unet, SCALE).forward_with_cond_scale(pictures, times, image_embed=torch.zeros(ROWS, DIM + 1))
    assert module.prob_mask_like is original
