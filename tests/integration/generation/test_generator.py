"""The generator: the same input, seed and options give the same picture, whatever is drawn beside it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import TIMESTEPS, random_decoder, random_prior, save_openai_clip, unet_config

import sp_data.generation.generator as generator_module
from sp_data.dataset.embed.clip import load_clip
from sp_data.errors import StageError, UsageError
from sp_data.generation.generator import ImageGenerator, slerp
from sp_data.generation.inputs import InputPicture, Repainting, repainting
from sp_data.generation.models import Models
from sp_data.generation.networks import WeightsSource
from sp_data.generation.options import SamplingOptions
from sp_data.generation.picture import GeneratedPicture, read_origin
from sp_data.generation.prompts import lost_words
from sp_data.generation.sweep import Sweep, sweep
from sp_data.training.words import WordEncoder

from .drawing import BLUE, RED, ROUNDING, SHORT, differ, noise, pixels, watched

SMALL_PX, LARGE_PX = 8, 16
GUIDED = dataclasses.replace(SHORT, cond_scale=3.0, prior_cond_scale=2.0)


def nothing(_: int) -> None:
    pass


def input_picture(seed: int, width: int = 64, height: int = 64) -> InputPicture:
    return InputPicture.of_image(noise(width, height, seed), f"picture {seed}.png")


def painted(picture: InputPicture, part: tuple[int, int, int, int]) -> Repainting:
    mask = Image.new("L", picture.image.size, 0)
    mask.paste(255, part)
    return repainting(picture, mask)


# Seeds and batches


def test_the_same_seed_is_the_same_file_and_another_seed_or_prompt_another_picture(generator: ImageGenerator) -> None:
    first, again = (list(generator.dream([RED, BLUE], num_pictures=2, seed=7, options=SHORT)) for _ in range(2))
    assert [made.png() for made in first] == [made.png() for made in again]
    assert [(made.prompt, made.seed) for made in first] == [(RED, 7), (RED, 8), (BLUE, 7), (BLUE, 8)]
    assert all(differ(one.picture, other.picture) > 20 for one in first for other in first if one is not other)
    assert len({made.file_name for made in first}) == 4
    assert all(made.picture.size == (LARGE_PX, LARGE_PX) for made in first)


def test_what_was_drawn_before_leaves_no_trace(models: Models) -> None:
    (first,) = ImageGenerator(models, "fp32").dream([RED], seed=7, options=SHORT)
    generator = ImageGenerator(models, "fp32")
    list(generator.dream([BLUE], options=dataclasses.replace(GUIDED, sampler="ddim", eta=0.0, negative_prompt=RED)))
    list(generator.inpaint([painted(input_picture(1), (0, 0, 9, 9))], [BLUE], options=SHORT))
    (last,) = generator.dream([RED], seed=7, options=SHORT)
    assert first.png() == last.png()


@pytest.mark.parametrize("options", [SHORT, GUIDED], ids=["plain", "guided"])
def test_a_picture_of_a_batch_of_eight_is_what_it_is_alone(
    generator: ImageGenerator, options: SamplingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []
    to_pictures = generator_module.to_pictures

    def keep(tensors: torch.Tensor) -> list[Image.Image]:
        drawn.extend(tensors)
        return to_pictures(tensors)

    monkeypatch.setattr(generator_module, "to_pictures", keep)
    together = list(generator.dream([RED], num_pictures=8, options=options))
    for seed in (0, 5, 7):
        (alone,) = generator.dream([RED], seed=seed, options=options)
        assert alone.origin == together[seed].origin
        assert differ(alone.picture, together[seed].picture) <= ROUNDING
        assert float((drawn[-1] - drawn[seed]).abs().max()) <= 1e-5 * float(drawn[-1].max() - drawn[-1].min())
    assert len(drawn) == 11


def test_a_picture_does_not_change_with_those_beside_it(generator: ImageGenerator) -> None:
    (alone,) = generator.dream_seeds([(RED, 7)], options=SHORT)
    others = list(generator.dream_seeds([(BLUE, 1), (RED, 7), (BLUE, 2)], options=SHORT))
    more = list(generator.dream_seeds([("a samurai", 9), (RED, 7), (RED, 8)], options=SHORT))
    assert others[1].png() == more[1].png()
    assert differ(alone.picture, others[1].picture) <= ROUNDING


def test_two_threads_draw_what_one_draws(generator: ImageGenerator) -> None:
    expected = {seed: next(generator.dream([RED], seed=seed, options=GUIDED)).png() for seed in range(4)}
    made: dict[int, bytes] = {}

    def draw(seed: int) -> None:
        made[seed] = next(generator.dream([RED], seed=seed, options=GUIDED)).png()

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == expected


def test_two_generators_in_two_threads_draw_what_each_draws_alone(models: Models) -> None:
    from dalle2_pytorch import dalle2_pytorch

    original = dalle2_pytorch.prob_mask_like
    generators = [ImageGenerator(models, "fp32") for _ in range(2)]
    expected = [next(generators[0].dream([RED], seed=seed, options=GUIDED)).png() for seed in range(6)]
    made: dict[int, bytes] = {}

    def draw(which: int) -> None:
        for seed in range(which, 6, 2):
            made[seed] = next(generators[which].dream([RED], seed=seed, options=GUIDED)).png()

    threads = [threading.Thread(target=draw, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made[seed] for seed in range(6)] == expected
    assert dalle2_pytorch.prob_mask_like is original


# What is drawn


def test_the_best_of_some_is_the_one_that_clip_finds_nearest(generator: ImageGenerator) -> None:
    candidates = list(generator.dream([RED], num_pictures=8, seed=20, options=SHORT))
    chosen = list(generator.dream([RED], num_pictures=4, seed=20, options=dataclasses.replace(SHORT, best_of=2)))
    for number, made in enumerate(chosen):
        best = max(candidates[2 * number : 2 * number + 2], key=lambda candidate: candidate.scores["clip"])
        assert made.seed == best.seed
        assert made.origin == best.origin, "its seed alone draws it"
        assert differ(made.picture, best.picture) <= ROUNDING
    assert any(made.seed % 2 for made in chosen), "the first of each would have done"


def test_the_best_variation_is_the_one_nearest_to_its_picture(generator: ImageGenerator) -> None:
    picture = input_picture(1)
    candidates = list(generator.variation([picture], num_pictures=4, options=SHORT))
    (chosen,) = generator.variation([picture], options=dataclasses.replace(SHORT, best_of=4))
    assert chosen.seed == max(candidates, key=lambda candidate: candidate.scores["clip_input"]).seed


def test_several_pictures_have_several_variations_each(generator: ImageGenerator) -> None:
    pictures = [input_picture(1), input_picture(2, 50, 90)]
    made = list(generator.variation(pictures, num_pictures=2, seed=5, options=SHORT))
    assert [(each.origin["inputs"][0]["name"], each.seed) for each in made] == [
        ("picture 1.png", 5),
        ("picture 1.png", 6),
        ("picture 2.png", 5),
        ("picture 2.png", 6),
    ]
    assert len({each.png() for each in made}) == 4
    (alone,) = generator.variation([pictures[1]], seed=6, options=SHORT)
    assert alone.origin == made[3].origin
    assert differ(alone.picture, made[3].picture) <= ROUNDING
    assert alone.origin["prior"] is None, "no prior took part"


PARTS = {
    "square": (64, 64, (10, 10, 40, 50)),
    "odd and landscape": (101, 57, (60, 3, 101, 57)),
    "portrait and long": (45, 90, (5, 0, 20, 90)),
}


@pytest.fixture(scope="module")
def repainted(generator: ImageGenerator) -> list[tuple[Repainting, list[GeneratedPicture]]]:
    """Two prompts and two seeds for each of three pictures, drawn at once."""
    parts = [
        painted(input_picture(number, width, height), part)
        for number, (width, height, part) in enumerate(PARTS.values())
    ]
    options = dataclasses.replace(SHORT, resample_times=2)
    made = list(generator.inpaint(parts, [RED, BLUE], num_pictures=2, seed=3, options=options))
    assert [(each.origin["inputs"][0]["name"], each.prompt, each.seed) for each in made] == [
        (f"picture {number}.png", prompt, seed) for number in range(3) for prompt in (RED, BLUE) for seed in (3, 4)
    ]
    return [(part, made[4 * number : 4 * number + 4]) for number, part in enumerate(parts)]


def test_inpainting_changes_the_white_part_and_nothing_else(
    repainted: list[tuple[Repainting, list[GeneratedPicture]]],
) -> None:
    for part, made in repainted:
        before, is_white = pixels(part.picture.image), part.mask > 0
        for each in made:
            after = pixels(each.picture)
            assert each.picture.size == part.picture.image.size
            assert np.array_equal(after[~is_white], before[~is_white])
            assert (after[is_white] != before[is_white]).any(axis=-1).mean() > 0.9
        parts = {pixels(each.picture)[is_white].tobytes() for each in made}
        assert len(parts) == 4, "each prompt and seed paints its own"
        assert made[0].origin["mask_sha256"] == part.mask_sha256
        assert (made[0].origin["sampler"], made[0].origin["resample_times"]) == ("ddim", 2)
        assert read_origin(made[0].png(), "it") == made[0].origin


def test_what_the_sampler_knows_of_a_picture_decides_what_is_painted(
    generator: ImageGenerator, repainted: list[tuple[Repainting, list[GeneratedPicture]]]
) -> None:
    part, made = repainted[0]
    options = dataclasses.replace(SHORT, resample_times=2)
    other = painted(input_picture(9), (10, 10, 40, 50))
    (beside_other,) = generator.inpaint([other], [RED], seed=3, options=options)
    is_white = part.mask > 0
    of_first, of_other = (pixels(each.picture)[is_white] for each in (made[0], beside_other))
    assert (of_first != of_other).any(axis=-1).mean() > 0.5


def test_an_interpolation_ends_in_the_dreams_of_its_ends(generator: ImageGenerator) -> None:
    options = dataclasses.replace(SHORT, sampler="ddim")
    made = list(generator.interpolate(RED, BLUE, num_pictures=3, seed=4, options=options))
    dreams = list(generator.dream([RED, BLUE], seed=4, options=options))
    assert differ(made[0].picture, dreams[0].picture) <= ROUNDING
    assert differ(made[2].picture, dreams[1].picture) <= ROUNDING
    assert [each.origin["position"] for each in made] == [0, 0.5, 1]
    assert {each.seed for each in made} == {4}
    assert made[0].prompt == f"{RED} → {BLUE}"
    to_first, to_last = (differ(made[1].picture, dream.picture) for dream in dreams)
    assert min(to_first, to_last) > ROUNDING
    assert made[1].origin["prior"] is not None


def test_an_interpolation_of_pictures_ends_in_their_variations(generator: ImageGenerator, models: Models) -> None:
    pictures = [input_picture(1), input_picture(2)]
    made = list(generator.interpolate(*pictures, num_pictures=3, seed=4, options=SHORT))
    variations = list(generator.variation(pictures, seed=4, options=SHORT))
    assert differ(made[0].picture, variations[0].picture) <= ROUNDING
    assert differ(made[2].picture, variations[1].picture) <= ROUNDING
    assert [each["name"] for each in made[1].origin["inputs"]] == ["picture 1.png", "picture 2.png"]
    # What lies in the middle is drawn from the middle of the two embeddings.
    rows = models.clip.embed([picture.image for picture in pictures], ["", ""])[0].astype(np.float32)
    middle = slerp(*torch.nn.functional.normalize(torch.from_numpy(rows), dim=-1), 0.5)
    assert made[1].embedding is not None
    assert made[1].scores["clip_input"] == pytest.approx(float(made[1].embedding @ middle.numpy()), abs=1e-4)


def test_the_upsampler_alone_makes_of_a_small_picture_what_it_makes_in_a_dream(generator: ImageGenerator) -> None:
    (whole,) = generator.dream([RED], seed=7, options=SHORT)
    (small,) = generator.dream([RED], seed=7, options=dataclasses.replace(SHORT, stop_unet=1))
    assert small.picture.size == (SMALL_PX, SMALL_PX)
    assert (len(small.origin["decoder"]), len(small.origin["steps"])) == (1, 1)
    picture = InputPicture.of_image(small.picture, "small.png")
    (enlarged,) = generator.upscale([picture], seed=7, options=SHORT)
    assert enlarged.picture.size == (LARGE_PX, LARGE_PX)
    # A dream enlarges the picture before it is rounded to 255 levels.
    assert np.abs(pixels(enlarged.picture) - pixels(whole.picture)).mean() < 2
    (other,) = generator.upscale([input_picture(3, 90, 50)], seed=7, options=SHORT)
    assert np.abs(pixels(other.picture) - pixels(whole.picture)).mean() > 5
    assert enlarged.origin["decoder"] == whole.origin["decoder"][1:]
    assert read_origin(enlarged.png(), "it")["start_unet"] == 2


# Guidance


def test_guidance_runs_the_first_unet_in_twice_the_rows_and_the_upsampler_once(generator: ImageGenerator) -> None:
    prior, (first, upsampler) = generator.models.prior.net, generator.models.decoder.unets
    with watched(prior, nothing) as guesses, watched(first, nothing) as small, watched(upsampler, nothing) as large:
        plain = list(generator.dream([RED], num_pictures=3, options=SHORT))
    assert (set(guesses), small, large) == ({3}, [3, 3], [3, 3])
    with watched(prior, nothing) as guesses, watched(first, nothing) as small, watched(upsampler, nothing) as large:
        guided = list(generator.dream([RED], num_pictures=3, options=GUIDED))
    assert (set(guesses), small, large) == ({6}, [6, 6], [3, 3])
    assert guided[0].origin["cond_scale"] == [3.0, 1.0]
    assert guided[0].origin["prior_cond_scale"] == 2.0
    assert differ(plain[0].picture, guided[0].picture) > 20


def test_a_negative_prompt_changes_the_picture_through_prior_and_decoder(generator: ImageGenerator) -> None:
    def drawn(**changes: Any) -> GeneratedPicture:
        return next(generator.dream([RED], options=dataclasses.replace(SHORT, **changes)))

    plain, default = drawn(), drawn(negative_prompt=BLUE)
    assert default.origin["negative_prompt"] == BLUE
    assert default.origin["cond_scale"] == [2.0, 1.0], "at 1 it would change nothing"
    pictures = [
        plain,
        default,
        drawn(negative_prompt="a samurai"),
        drawn(cond_scale=2.0),
        drawn(negative_prompt=BLUE, cond_scale=1.0, prior_cond_scale=2.0),
        drawn(prior_cond_scale=2.0),
    ]
    assert all(differ(one.picture, other.picture) > 5 for one in pictures for other in pictures if one is not other)
    with pytest.raises(UsageError, match="would change nothing"):
        drawn(negative_prompt=BLUE, cond_scale=1.0)


def test_a_variation_that_is_led_away_from_words_names_the_prior(generator: ImageGenerator) -> None:
    kid = InputPicture.of_image(Image.new("RGB", (64, 64), "blue"))
    short, long = (
        next(generator.variation([kid], options=dataclasses.replace(SHORT, negative_prompt=BLUE, prior_steps=steps)))
        for steps in (2, 12)
    )
    assert short.origin["prior"] == generator.models.prior_weights.origin
    assert differ(short.picture, long.picture) > 0
    assert short.file_name != long.file_name


def test_an_upsampler_without_a_condition_is_led_nowhere(generator: ImageGenerator) -> None:
    kid = InputPicture.of_image(Image.new("RGB", (64, 64), "blue"))
    with pytest.raises(UsageError, match="would change nothing"):
        generator.upscale([kid], options=dataclasses.replace(SHORT, negative_prompt=BLUE))


def test_a_sweep_is_of_one_seed(generator: ImageGenerator) -> None:
    with pytest.raises(UsageError, match="have one seed"):
        sweep(generator, RED, Sweep({"steps": (2, 3)}), options=dataclasses.replace(SHORT, best_of=2))


def test_a_sweep_draws_each_combination_as_a_dream_of_its_own(generator: ImageGenerator) -> None:
    axes = Sweep({"cond_scale": (1.0, 3.0), "steps": (2, 3)})
    made = list(sweep(generator, RED, axes, seed=7, options=SHORT))
    settings = [(each.origin["steps"][0], each.origin["cond_scale"][0]) for each in made]
    assert settings == [(2, 1.0), (2, 3.0), (3, 1.0), (3, 3.0)]
    (alone,) = generator.dream([RED], seed=7, options=dataclasses.replace(SHORT, steps=2, cond_scale=3.0))
    assert made[1].png() == alone.png()
    with pytest.raises(UsageError, match="--steps 5000: expected 1 to 999"):
        sweep(generator, RED, Sweep({"steps": (2, 5_000)}), options=SHORT)


def test_a_sweep_of_samplers_takes_eta_for_ddim_alone(generator: ImageGenerator) -> None:
    quiet = dataclasses.replace(SHORT, sampler=None, eta=0.0)
    pictures = list(sweep(generator, RED, Sweep({"sampler": ("ddim", "dpm++")}), options=quiet))
    noisy = list(
        sweep(generator, RED, Sweep({"sampler": ("ddim", "dpm++")}), options=dataclasses.replace(quiet, eta=1.0))
    )
    assert differ(pictures[0].picture, noisy[0].picture) > 0
    assert differ(pictures[1].picture, noisy[1].picture) == 0
    with pytest.raises(UsageError, match="only ddim has it"):
        sweep(generator, RED, Sweep({"steps": (2, 3)}), options=dataclasses.replace(quiet, sampler="dpm++"))


# Refusals


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"steps": 5_000}, "dream", "--steps 5000: expected 1 to 999 (--sampler ddpm takes all 1000)"),
        ({"steps": 0}, "dream", "--steps 0: expected 1 to 999"),
        ({"steps": (2, 3, 4)}, "dream", "--steps has 3 numbers: expected one, or one for each of the 2 unets"),
        ({"cond_scale": (1.0, 2.0, 3.0)}, "dream", "--cond-scale has 3 numbers: expected one, or one for each"),
        ({"sampler": "ddpm", "steps": 4}, "dream", "--steps: ddpm takes every timestep; choose another --sampler"),
        ({"sampler": "dpm++"}, "inpaint", "--sampler dpm++ cannot repeat a step, as inpainting does; take ddim"),
        ({"stop_unet": 3}, "dream", "--stop-unet 3: this decoder has 2 unets"),
        ({"stop_unet": 0}, "dream", "--stop-unet 0: this decoder has 2 unets"),
        ({"prior_steps": 1}, "dream", "--prior-steps 1: expected 2 to 1000"),
        ({"prior_steps": 0}, "dream", "--prior-steps 0: expected 2 to 1000"),
        ({"prior_steps": 1_001}, "dream", "--prior-steps 1001: expected 2 to 1000"),
    ],
)
def test_what_the_models_cannot_do_is_refused_before_anything_is_drawn(
    generator: ImageGenerator, options: dict[str, Any], kind: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        generator.settled(SamplingOptions(**options), kind)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampler": "euler"}, "sampler 'euler': expected one of dpm++, ddim, ddpm"),
        ({"eta": 1.5}, "--eta 1.5: expected 0 to 1"),
        ({"eta": float("nan")}, "--eta nan: expected 0 to 1"),
        ({"prior_cond_scale": -1}, "--prior-cond-scale -1: expected 0 to 100"),
        ({"cond_scale": (1.0, 101.0)}, "--cond-scale 101: expected 0 to 100"),
        ({"cond_scale": float("nan")}, "--cond-scale nan: expected 0 to 100"),
        ({"best_of": 0}, "--best-of 0: expected 1 to 64"),
        ({"best_of": 65}, "--best-of 65: expected 1 to 64"),
        ({"resample_times": 0}, "--resample-times 0: expected 1 to 100"),
    ],
)
def test_what_no_models_can_do_is_refused_at_once(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        SamplingOptions(**options)


def test_guidance_of_models_that_never_learnt_without_a_condition_is_refused(models: Models) -> None:
    decoder_options, prior_options = SamplingOptions(cond_scale=3), SamplingOptions(prior_cond_scale=3)
    decoder, prior = models.decoder, models.prior
    decoder.can_classifier_guidance = prior.can_classifier_guidance = False
    try:
        generator = ImageGenerator(models, "fp32")
        with pytest.raises(UsageError, match=r"--cond-scale 3: this decoder .*image_cond_drop_prob = 0.*only do 1"):
            generator.settled(decoder_options, "dream")
        with pytest.raises(UsageError, match=r"--prior-cond-scale 3: this prior .*cond_drop_prob = 0.*can only do 1"):
            generator.settled(prior_options, "dream")
        led_away = generator.settled(SamplingOptions(negative_prompt=BLUE), "dream")
        assert led_away.cond_scale == (2.0, 1.0), "a negative prompt needs no null condition"
    finally:
        decoder.can_classifier_guidance = prior.can_classifier_guidance = True
    old = dataclasses.replace(models, prior_weights=dataclasses.replace(models.prior_weights, config={"layout": "1.0"}))
    with pytest.raises(UsageError, match=r"weights of dalle2-pytorch 1\.0 to 1\.3"):
        ImageGenerator(old, "fp32").settled(prior_options, "dream")


def test_prompts_and_ends_that_nothing_can_be_drawn_from_are_refused(generator: ImageGenerator) -> None:
    whole = painted(input_picture(1), (0, 0, 9, 9))
    for refused in (
        lambda: generator.dream([RED, "  "]),
        lambda: generator.inpaint([whole], [""]),
        lambda: generator.interpolate(RED, " "),
        lambda: generator.dream([RED], options=SamplingOptions(negative_prompt="a" * 20_000)),
        lambda: generator.variation([input_picture(1)], prompt="kid \udcff"),
        lambda: generator.interpolate(RED, BLUE, num_pictures=1),
        lambda: generator.interpolate(RED, BLUE, options=dataclasses.replace(SHORT, best_of=2)),
        lambda: generator.upscale([input_picture(1)], start_unet=3),
        lambda: generator.upscale([input_picture(1)], options=SamplingOptions(stop_unet=1)),
    ):
        with pytest.raises(UsageError):
            refused()
    assert list(generator.dream([])) == []


def test_compiling_on_a_cpu_is_refused(models: Models) -> None:
    if models.device.type == "cpu":
        with pytest.raises(UsageError, match="--compile is for a GPU"):
            ImageGenerator(models, "fp32", compile_networks=True)


# Memory, progress, cancelling, precision


def test_a_batch_that_does_not_fit_is_halved_and_every_picture_comes(models: Models) -> None:
    def full(rows: int) -> None:
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    expected = {each.seed: each for each in ImageGenerator(models, "fp32").dream([RED], num_pictures=7, options=SHORT)}
    generator = ImageGenerator(models, "fp32")
    with watched(models.decoder.unets[1], full) as rows:
        made = list(generator.dream([RED], num_pictures=7, options=SHORT))
        again = list(generator.dream([RED], num_pictures=2, options=SHORT))
    assert rows == [7, 3] + [1, 1] * 7 + [2, 2], "the next drawing tries all of it again"
    assert [each.seed for each in made] == list(range(7))
    assert all(differ(each.picture, expected[each.seed].picture) <= ROUNDING for each in [*made, *again])


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["CUDA", "Python", "torch on a CPU"],
)
def test_one_picture_that_does_not_fit_ends_in_a_sentence(models: Models, failure: Exception) -> None:
    def full(_: int) -> None:
        raise failure

    generator = ImageGenerator(models, "fp32")
    with watched(models.decoder.unets[0], full) as rows, pytest.raises(StageError) as caught:
        list(generator.dream([RED], num_pictures=4, options=SHORT))
    assert rows == [4, 2, 1]
    assert "one picture does not fit into the free memory" in str(caught.value)
    assert "--device cpu" in str(caught.value)
    with watched(models.decoder.unets[0], nothing) as rows:
        assert len(list(generator.dream([RED], options=SHORT))) == 1, "and another drawing begins"


def test_another_failure_is_not_taken_for_a_full_memory(models: Models) -> None:
    def broken(_: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    generator = ImageGenerator(models, "fp32")
    with watched(models.decoder.unets[0], broken) as rows, pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(generator.dream([RED], num_pictures=4, options=SHORT))
    assert rows == [4]


class Cancelled(Exception):
    pass


def test_a_drawing_that_is_cancelled_keeps_what_was_drawn_and_leaves_the_models_as_they_were(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = ImageGenerator(models, "fp32")
    monkeypatch.setattr("sp_data.generation.generator.BATCH", 2)
    told: list[tuple[int, int]] = []

    def cancel_in_the_second_batch(done: int, total: int) -> None:
        told.append((done, total))
        if sum(done == 0 for done, _ in told) == 2 and done == 3:
            raise Cancelled

    options = dataclasses.replace(GUIDED, sampler="ddim", eta=0.3, negative_prompt=BLUE)
    drawing = generator.dream([RED], num_pictures=6, options=options, on_step=cancel_in_the_second_batch)
    assert [next(drawing).seed, next(drawing).seed] == [0, 1]
    with pytest.raises(Cancelled):
        next(drawing)
    assert (models.prior.sample_timesteps, models.decoder.ddim_sampling_eta) == (16, 0)
    assert "forward_with_cond_scale" not in vars(models.prior.net)
    fresh = next(ImageGenerator(models, "fp32").dream([RED], options=SHORT))
    assert next(generator.dream([RED], options=SHORT)).png() == fresh.png()


@pytest.mark.parametrize("sampler", ["dpm++", "ddim"])
def test_progress_counts_each_batchs_steps_up_to_their_total(generator: ImageGenerator, sampler: Any) -> None:
    told: list[tuple[int, int]] = []
    options = SamplingOptions(sampler=sampler, steps=(4, 3), prior_steps=5, negative_prompt=BLUE)
    list(generator.dream([RED], options=options, on_step=lambda done, total: told.append((done, total))))
    totals = {total for _, total in told}
    assert totals == {4 + 3 + 2 * 5}, "the prior guesses for the prompt and for the negative one"
    assert [done for done, _ in told] == list(range(len(told)))
    # dalle2-pytorch's DDIM of a prior takes one step less than it is asked for.
    assert len(told) == 4 + 3 + 2 * 4


def test_a_decoder_of_one_unet_is_measured_and_draws(models: Models) -> None:
    alone = dataclasses.replace(
        models,
        decoder=random_decoder(unet_config(1, models.dim, predict_x_start=True)),
        unet_weights=models.unet_weights[:1],
    )
    (made,) = ImageGenerator(alone).dream([RED], options=SHORT)
    assert made.picture.size == (SMALL_PX, SMALL_PX)


def test_in_bfloat16_a_picture_is_roughly_the_same_and_says_so(generator: ImageGenerator, models: Models) -> None:
    (exact,) = generator.dream([RED], options=SHORT)
    (rough,) = ImageGenerator(copied(models), "bf16").dream([RED], options=SHORT)
    assert (exact.origin["precision"], rough.origin["precision"]) == ("fp32", "bf16")
    assert exact.file_name != rough.file_name
    off = np.abs(pixels(exact.picture) - pixels(rough.picture))
    assert 0 < off.mean() < 8


def test_weights_rounded_once_draw_what_weights_rounded_at_each_step_draw(models: Models) -> None:
    each_step = ImageGenerator(copied(models), "fp32")
    each_step.precision = "bf16"
    once = ImageGenerator(copied(models), "bf16")
    assert {weight.dtype for weight in once.models.prior.parameters()} == {torch.float32}, "the prior is not rounded"
    expected, drawn = (list(each.dream([RED, BLUE], seed=3, options=GUIDED)) for each in (each_step, once))
    assert [made.png() for made in drawn] == [made.png() for made in expected]


def copied(models: Models) -> Models:
    """Others draw with these models in float32: a generator in bf16 needs its own decoder."""
    return dataclasses.replace(models, decoder=copy.deepcopy(models.decoder))


# Words


def test_the_words_that_are_told_to_be_lost_are_those_that_clip_does_not_read(models: Models) -> None:
    prompt = "red coat blue hat " * 24
    lost = lost_words(prompt)
    kept = prompt.strip().removesuffix(lost).strip()
    whole, read, less = models.clip.embed_captions([prompt, kept, kept.rsplit(" ", 1)[0]])
    assert lost
    assert np.allclose(whole, read, atol=1e-6)
    assert not np.allclose(whole, less, atol=1e-4)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ImageGenerator:
    """Draws with networks that read words, as southpark's do, by a CLIP whose text tower is wide enough for them."""
    weights = tmp_path_factory.mktemp("clip") / "clip.pt"
    save_openai_clip(weights)
    source = WeightsSource("random", {"weights": "none"}, "", {})
    unet = unet_config(1, 64, 77, predict_x_start=True, text_cond_drop_prob=0.1, unet={"cond_on_text_encodings": True})
    loaded = load_clip(str(weights), 64)
    models = Models(
        clip=loaded,
        clip_name="wide",
        words=WordEncoder(loaded),
        prior=random_prior(64, 77, TIMESTEPS, strength=0.2, sample_timesteps=16),
        decoder=random_decoder(unet, hearing=30),
        prior_weights=source,
        unet_weights=(source,),
        device=torch.device("cpu"),
        dim=64,
        steps=4,
    )
    return ImageGenerator(models, "fp32")


@contextlib.contextmanager
def heard(reader: ImageGenerator) -> Iterator[list[torch.Tensor]]:
    """The words that the unet is given meanwhile, of each pass."""
    (unet,) = reader.models.decoder.unets
    encodings: list[torch.Tensor] = []
    forward = unet.forward

    def listening(*arguments: Any, **named: Any) -> Any:
        encodings.append(named["text_encodings"])
        return forward(*arguments, **named)

    unet.forward = listening
    try:
        yield encodings
    finally:
        del unet.forward


def test_a_decoder_that_reads_words_is_given_those_of_each_prompt(reader: ImageGenerator) -> None:
    prompts = ["a red kid", "a blue kid in a coat"]
    assert reader.models.words is not None
    red, blue, none = reader.models.words([*prompts, ""])
    with heard(reader) as encodings:
        list(reader.dream(prompts, options=SHORT))
        list(reader.variation([input_picture(1)], prompt="a red kid", options=SHORT))
        list(reader.variation([input_picture(1)], options=SHORT))
    for given, expected in zip(
        encodings, [torch.stack([red, blue])] * 2 + [red[None]] * 2 + [none[None]] * 2, strict=True
    ):
        assert torch.allclose(given, expected, atol=1e-5)
    with heard(reader) as encodings:
        list(reader.dream(["a red kid"], options=dataclasses.replace(GUIDED, negative_prompt="a blue kid in a coat")))
    assert all(torch.allclose(given, torch.stack([red, blue]), atol=1e-5) for given in encodings)


def test_where_the_decoder_reads_words_an_interpolation_goes_from_those_of_one_end_to_those_of_the_other(
    reader: ImageGenerator,
) -> None:
    prompts = ("a red kid", "a blue kid in a coat")
    with heard(reader) as between:
        made = list(reader.interpolate(*prompts, num_pictures=3, seed=4, options=SHORT))
    with heard(reader) as of_dreams:
        dreams = list(reader.dream(prompts, seed=4, options=SHORT))
    first, last = of_dreams[0]
    assert not torch.allclose(first, last)
    assert torch.allclose(between[0], torch.stack([first, (first + last) / 2, last]), atol=1e-5)
    assert differ(made[0].picture, dreams[0].picture) <= ROUNDING
    assert differ(made[2].picture, dreams[1].picture) <= ROUNDING
    with heard(reader) as of_pictures:
        list(reader.interpolate(input_picture(1), input_picture(2), num_pictures=2, options=SHORT))
    assert reader.models.words is not None
    none = reader.models.words([""])
    assert torch.allclose(of_pictures[0], none.expand_as(of_pictures[0]), atol=1e-5), "a file's name is not drawn"


def test_one_unet_cannot_enlarge(reader: ImageGenerator) -> None:
    with pytest.raises(UsageError, match="unet 2 cannot enlarge a picture: this decoder has one unet, which draws"):
        reader.upscale([input_picture(1)])
