"""A picture's noise depends on its own seed, not on the pictures beside it."""

from __future__ import annotations

import pytest
import torch

from sp_data.generation.noise import NoiseByPicture


def drawn(seeds: list[int], purpose: str = "decoder") -> torch.Tensor:
    with NoiseByPicture(purpose, seeds):
        first = torch.randn((len(seeds), 3, 4, 4), device=torch.device("cpu"))
        return torch.stack([first, torch.randn_like(first)], dim=1)


def test_it_does_not_depend_on_what_is_drawn_beside_it() -> None:
    alone, together = drawn([7]), drawn([3, 7, 9])
    assert torch.equal(alone[0], together[1])


def test_seeds_purposes_and_steps_have_noise_of_their_own() -> None:
    noise = drawn([7, 8])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert not torch.equal(drawn([7]), drawn([7], "prior"))


def test_it_is_normal_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    noise = drawn(list(range(500)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_noise_for_another_number_of_pictures_is_refused() -> None:
    with NoiseByPicture("decoder", [1, 2]), pytest.raises(ValueError, match="expected one row per seed"):
        torch.randn(3, 4)
