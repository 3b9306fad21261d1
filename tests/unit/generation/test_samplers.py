"""DDPM and DDIM are dalle2-pytorch's to the bit; DPM-Solver++ goes where DDIM goes, in a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny_networks import DIM, condition, random_decoder, unet_config

from sp_data.generation.guidance import GuidedUnet
from sp_data.generation.noise import NoiseByPicture
from sp_data.generation.options import Sampler
from sp_data.generation.samplers import Condition, Known, lowres_condition, sample_unet

SEEDS = [3, 7]
ROWS = len(SEEDS)


def drawn(
    model: Any, sampler: Sampler, steps: int, *, eta: float = 1.0, encodings: torch.Tensor | None = None
) -> torch.Tensor:
    """By all unets of a decoder, one after the other."""
    embeds, pictures = condition(ROWS)["image_embed"], None
    with NoiseByPicture("decoder", SEEDS):
        for number, unet in enumerate(model.unets, start=1):
            lowres, level = (None, None) if pictures is None else lowres_condition(model, number, pictures)
            pictures = sample_unet(
                model,
                number,
                GuidedUnet(unet, 1.0),
                Condition(embeds, encodings if unet.cond_on_text_encodings else None, lowres, level),
                sampler=sampler,
                steps=steps,
                eta=eta,
            )
    assert pictures is not None
    return pictures


def by_dalle2_pytorch(
    model: Any, steps: int | None, *, eta: float = 1.0, encodings: torch.Tensor | None = None
) -> torch.Tensor:
    embeds = condition(ROWS)["image_embed"]
    model.sample_timesteps, model.ddim_sampling_eta = (steps,) * len(model.unets), eta
    with NoiseByPicture("decoder", SEEDS):
        pictures: torch.Tensor = model.sample(
            image_embed=embeds,
            text_encodings=encodings,
            cond_scale=1.0,
            one_unet_in_gpu_at_time=False,
        )
    return pictures


SHORT: dict[str, Any] = {"timesteps": 8, "learned_variance": True}
DECODERS = {
    "one unet": [unet_config(**SHORT)],
    "a cascade": [unet_config(**SHORT), unet_config(2, timesteps=8)],
    "with words": [unet_config(**SHORT, predict_v=True, unet={"cond_on_text_encodings": True})],
}


@pytest.mark.parametrize("unets", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_the_pictures_are_those_of_dalle2_pytorch_to_the_bit(sampler: Sampler, unets: list[dict[str, Any]]) -> None:
    model = random_decoder(*unets)
    encodings = condition(ROWS)["text_encodings"] if model.condition_on_text_encodings else None
    steps = 8 if sampler == "ddpm" else 5
    expected = by_dalle2_pytorch(model, None if sampler == "ddpm" else steps, encodings=encodings)
    pictures = drawn(model, sampler, steps, encodings=encodings)
    assert torch.equal(pictures, expected)
    assert pictures.shape == (ROWS, 3, model.image_sizes[-1], model.image_sizes[-1])
    assert float(pictures.std()) > 0.05


def test_the_noise_of_ddim_is_what_is_asked_for() -> None:
    model = random_decoder(unet_config(**SHORT))
    none, quarter = (by_dalle2_pytorch(model, 5, eta=eta) for eta in (0.0, 0.25))
    assert not torch.equal(none, quarter)
    assert torch.equal(drawn(model, "ddim", 5, eta=0.0), none)
    assert torch.equal(drawn(model, "ddim", 5, eta=0.25), quarter)
    assert model.ddim_sampling_eta == 0.25, "as it was before"


@dataclass
class KnownAnswer:
    """A unet that knows the pictures it was taught, `mean` ± `spread` (0: one picture): then the path from noise to
    picture has a formula. As the paths of all deterministic samplers it ends, of noise z that begins at alpha,

        mean + spread · (z − √alpha · mean) / √(alpha · spread² + 1 − alpha)
    """

    model: Any
    mean: torch.Tensor
    spread: float = 0.0
    self_cond: bool = False
    lowres_cond: bool = False

    def forward(self, x: torch.Tensor, time: torch.Tensor, **_: Any) -> torch.Tensor:
        alpha = self.model.noise_schedulers[0].alphas_cumprod[int(time[0])]
        gain = alpha.sqrt() * self.spread**2 / (alpha * self.spread**2 + 1 - alpha)
        picture = self.mean + gain * (x - alpha.sqrt() * self.mean)
        noise = (x - alpha.sqrt() * picture) / (1 - alpha).sqrt()
        output = noise
        if self.model.predict_v[0]:
            output = alpha.sqrt() * noise - (1 - alpha).sqrt() * picture
        elif self.model.predict_x_start[0]:
            output = picture
        # What it says of the variance is nobody's business here.
        return torch.cat((output, torch.randn_like(x) * 9), dim=1) if self.model.learned_variance[0] else output


GRADIENT = torch.linspace(-0.5, 0.5, 8).expand(3, 8, 8)
OBJECTIVES = {
    "noise": {},
    "v": {"predict_v": True},
    "x_start": {"predict_x_start": True},
    "noise and variance": {"learned_variance": True},
    "noise, linear schedule": {"beta_schedule": "linear"},
}


def sampled(model: Any, unet: Any, sampler: Sampler, steps: int) -> torch.Tensor:
    with NoiseByPicture("decoder", SEEDS):
        return sample_unet(
            model,
            1,
            GuidedUnet(unet, 1.0),
            Condition(torch.zeros(ROWS, DIM)),
            sampler=sampler,
            steps=steps,
            eta=0.0,
        )


def error(pictures: torch.Tensor, expected: torch.Tensor) -> float:
    """The root of the mean square."""
    return float((pictures - expected).square().mean().sqrt())


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_solver_follows_the_path_of_every_objective(objective: dict[str, Any]) -> None:
    model = random_decoder(unet_config(**objective))
    unet = KnownAnswer(model, GRADIENT, spread=0.2)
    with NoiseByPicture("decoder", SEEDS):
        noise = torch.randn(ROWS, 3, 8, 8)
    expected = (GRADIENT + 0.2 * noise + 1) / 2
    solver, ddim = (sampled(model, unet, sampler, 100) for sampler in ("dpm++", "ddim"))
    assert error(solver, expected) < 0.002
    assert error(solver, expected) < error(ddim, expected) / 2, "it is of the second order"
    assert error(sampled(model, unet, "dpm++", 8), expected) < 0.08


def test_one_step_of_the_solver_draws_what_the_network_says_then() -> None:
    model = random_decoder(unet_config())
    assert error(sampled(model, KnownAnswer(model, GRADIENT), "dpm++", 1), (GRADIENT + 1) / 2) < 1e-5


def test_the_solver_draws_what_ddim_draws_by_a_network_that_learnt_nothing() -> None:
    model = random_decoder(unet_config(predict_v=True, learned_variance=True))
    ddim = drawn(model, "ddim", 30, eta=0.0)
    few, more = (error(drawn(model, "dpm++", steps), ddim) for steps in (3, 15))
    assert more < float(ddim.std()) / 25
    assert few > 5 * more
    assert error(ddim, ddim.flip(0)) > float(ddim.std()), "another seed draws another picture"


def test_the_solver_enlarges_a_picture_as_ddim_does() -> None:
    model = random_decoder(unet_config(), unet_config(2, predict_v=True))
    small = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def enlarged(sampler: Sampler, steps: int, small: torch.Tensor = small) -> torch.Tensor:
        embeds = condition(ROWS)["image_embed"]
        with NoiseByPicture("unet 2", SEEDS):
            lowres, level = lowres_condition(model, 2, small)
            unet = GuidedUnet(model.unets[1], 1.0)
            given = Condition(embeds, None, lowres, level)
            return sample_unet(model, 2, unet, given, sampler=sampler, steps=steps, eta=0.0)

    told = []
    hook = model.unets[1].to_lowres_noise_cond.register_forward_pre_hook(
        lambda _, levels: told.append(levels[0].tolist())
    )
    enlarged("dpm++", 2)
    hook.remove()
    assert told == [[200.0] * ROWS] * 2, "the noise of the small picture"
    ddim = enlarged("ddim", 30)
    assert error(enlarged("dpm++", 15), ddim) < float(ddim.std()) / 20
    assert error(enlarged("dpm++", 15, small.flip(0)), ddim) > float(ddim.std()) / 5


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_the_solver_limits_pictures_as_dalle2_pytorch_does(is_dynamic: bool) -> None:
    model = random_decoder(unet_config())
    model.use_dynamic_thres = is_dynamic
    too_bright = GRADIENT * 20
    expected = model.unnormalize_img(model.dynamic_threshold(too_bright.expand(ROWS, -1, -1, -1)))
    assert error(sampled(model, KnownAnswer(model, too_bright), "dpm++", 12), expected) < 1e-5
    assert is_dynamic == (len(expected.unique()) > 2), "a fixed limit leaves black and white"


@pytest.mark.parametrize(
    ("timesteps", "schedule", "steps"),
    [(100, "cosine", 99), (20, "cosine", 19), (20, "linear", 16)],
)
def test_the_solver_takes_almost_all_timesteps_too(timesteps: int, schedule: str, steps: int) -> None:
    """Where rounding makes two of them equal, diffusers divides by zero."""
    model = random_decoder(unet_config(timesteps=timesteps, beta_schedule=schedule))
    pictures = sampled(model, KnownAnswer(model, GRADIENT), "dpm++", steps)
    assert error(pictures, (GRADIENT + 1) / 2) < 1e-3


@pytest.mark.parametrize(("sampler", "steps"), [("dpm++", 5), ("dpm++", 1), ("ddim", 5), ("ddim", 1), ("ddpm", 8)])
def test_pictures_of_a_cascade_have_their_size_and_range_and_every_step_is_told(sampler: Sampler, steps: int) -> None:
    model = random_decoder(*DECODERS["a cascade"])
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1

    embeds = condition(ROWS)["image_embed"]
    with NoiseByPicture("decoder", SEEDS):
        small = sample_unet(
            model, 1, GuidedUnet(model.unets[0], 1.0, on_step=tell), Condition(embeds), sampler=sampler, steps=steps
        )
        assert told == steps
        lowres, level = lowres_condition(model, 2, small)
        large = sample_unet(
            model,
            2,
            GuidedUnet(model.unets[1], 1.0, on_step=tell),
            Condition(embeds, None, lowres, level),
            sampler=sampler,
            steps=steps,
        )
    assert told == 2 * steps
    assert small.shape == (ROWS, 3, 8, 8)
    assert large.shape == (ROWS, 3, 16, 16)
    for pictures in (small, large):
        assert pictures.dtype == torch.float32
        assert math.isfinite(float(pictures.sum()))
    # The last step gives the picture itself, within the threshold; DDIM's last but one timestep still has its noise.
    margin = 1e-6 if sampler != "ddim" else 0.2
    assert float(large.min()) >= -margin
    assert float(large.max()) <= 1 + margin


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_what_is_known_of_a_picture_comes_out_as_it_was(sampler: Sampler) -> None:
    model = random_decoder(unet_config(timesteps=8))
    known = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    keep = torch.zeros(ROWS, 8, 8, dtype=torch.bool)
    keep[0, :, :4] = keep[1, 5:] = True
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1

    with NoiseByPicture("decoder", SEEDS):
        pictures = sample_unet(
            model,
            1,
            GuidedUnet(model.unets[0], 1.0, on_step=count),
            Condition(condition(ROWS)["image_embed"]),
            sampler=sampler,
            steps=8 if sampler == "ddpm" else 4,
            known=Known(known, keep),
            resample_times=3,
        )
    everywhere = keep[:, None].expand_as(pictures)
    assert float((pictures - known)[everywhere].abs().max()) < 1e-6
    assert error(pictures[~everywhere], known[~everywhere]) > 0.1
    assert passes == 3 * (8 if sampler == "ddpm" else 4)


def test_a_drawing_that_is_cancelled_leaves_the_decoder_as_it_was() -> None:
    model = random_decoder(unet_config())
    before = model.ddim_sampling_eta

    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_unet(
            model,
            1,
            GuidedUnet(model.unets[0], 1.0, on_step=cancel),
            Condition(condition(ROWS)["image_embed"]),
            sampler="ddim",
            steps=3,
            eta=0.5,
        )
    assert model.ddim_sampling_eta == before
