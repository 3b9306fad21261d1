"""Pictures from words, from pictures and from parts of pictures: one set of models, loaded once, kept on its device.

    generator = ImageGenerator(load_models(recipe, lake))
    for made in generator.dream(["a kid in a red coat"], num_pictures=4, seed=7):
        made.picture.save(…)

    dream         words -> CLIP's text embedding -> prior -> image embedding -> decoder -> picture
    variation     picture -> CLIP's image embedding -> decoder -> picture
    inpaint       words as in a dream; what the mask keeps is known to the sampler, and stays
    interpolate   two image embeddings and those between them -> decoder -> pictures
    upscale       picture -> the unets after the first

Each picture depends on its input, its seed, the options and the weights, and on nothing that is drawn beside it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sp_data.errors import StageError, UsageError
from sp_data.generation.guidance import GuidedUnet, guided_prior, is_conditioned
from sp_data.generation.inputs import InputPicture, Repainting
from sp_data.generation.models import Models
from sp_data.generation.noise import NoiseByPicture
from sp_data.generation.options import NEGATIVE_COND_SCALE, Sampler, SamplingOptions, SettledOptions
from sp_data.generation.picture import GeneratedPicture
from sp_data.generation.precision import GenerationPrecision, autocast, settle_precision
from sp_data.generation.prompts import check_prompt
from sp_data.generation.samplers import Condition, Known, lowres_condition, sample_unet
from sp_data.training.decoder import to_pictures
from sp_data.training.prior import guess

log = logging.getLogger(__name__)

BATCH = 16
_ALONE = threading.Lock()
"""While one generator draws, dalle2-pytorch's module drops conditions as that one wants, for whoever calls it."""

OnStep = Callable[[int, int], None]
"""Called before each step of a batch's networks with the steps done and their total. What it raises ends the drawing;
pictures that were yielded before stay."""


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """One picture to draw."""

    kind: str
    prompt: str
    seed: int
    image_embed: torch.Tensor | None = None
    """`(dim,)`; None: the prior's for the prompt."""
    repainting: Repainting | None = None
    smaller: InputPicture | None = None
    """What the unets after the first enlarge."""
    inputs: tuple[InputPicture, ...] = ()
    ends: tuple[str, str] | None = None
    """The words of both ends of an interpolation, empty for a picture; its place between them is in `extra`."""
    extra: dict[str, Any] = field(default_factory=dict)


class ImageGenerator:
    """Draws with one set of models. May be used from several threads: of all generators, one draws at a time."""

    def __init__(
        self, models: Models, precision: GenerationPrecision = "auto", *, compile_networks: bool = False
    ) -> None:
        """`precision`: auto takes bf16 where it is clearly faster here, which is measured now. bf16 rounds the weights
        of `models.decoder`: from then on only generators in bf16 can draw with these models.

        `compile_networks`: by torch.compile, on a GPU; the first picture of each size takes minutes. Raises UsageError
        on a CPU.
        """
        self.models = models
        if compile_networks:
            if models.device.type != "cuda":
                raise UsageError("--compile is for a GPU: on a CPU it would take minutes and win little")
            from sp_data.training.switches import compile_blocks

            compile_blocks(models.prior)
            compile_blocks(models.decoder)
        self.precision = settle_precision(models, precision)

    def dream(
        self,
        prompts: Sequence[str],
        *,
        num_pictures: int = 1,
        seed: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[GeneratedPicture]:
        """`num_pictures` of each prompt, with seeds `seed`, `seed` + 1, …; a repeated prompt counts once.

        All of these raise UsageError before anything is drawn if the models cannot do what is asked, and StageError if
        not even one picture fits into the memory.
        """
        orders = [
            _Order("dream", prompt, seed + number)
            for prompt in dict.fromkeys(prompts)
            for number in range(num_pictures)
        ]
        return self._draw(orders, self.settled(options, "dream"), on_step, num_candidates=num_pictures)

    def dream_seeds(
        self, prompts: Sequence[tuple[str, int]], *, options: SamplingOptions | None = None
    ) -> Iterator[GeneratedPicture]:
        """One picture of each (prompt, seed)."""
        return self._draw([_Order("dream", prompt, seed) for prompt, seed in prompts], self.settled(options, "dream"))

    def variation(
        self,
        pictures: Sequence[InputPicture],
        *,
        prompt: str = "",
        num_pictures: int = 1,
        seed: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[GeneratedPicture]:
        """Pictures of what CLIP sees in each picture. `prompt` is read only by a decoder that reads words."""
        settled = self.settled(options, "variation")
        embeds = self._embeddings(pictures)
        orders = [
            _Order("variation", prompt, seed + number, image_embed=embed, inputs=(picture,))
            for picture, embed in zip(pictures, embeds, strict=True)
            for number in range(num_pictures)
        ]
        return self._draw(orders, settled, on_step, num_candidates=num_pictures)

    def inpaint(
        self,
        repaintings: Sequence[Repainting],
        prompts: Sequence[str],
        *,
        num_pictures: int = 1,
        seed: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[GeneratedPicture]:
        """Each picture with its white part drawn anew from each prompt, in its own size; the rest is untouched."""
        settled = self.settled(options, "inpaint")
        orders = [
            _Order(
                "inpaint",
                prompt,
                seed + number,
                repainting=repainting,
                inputs=(repainting.picture,),
                extra=repainting.origin,
            )
            for repainting in repaintings
            for prompt in dict.fromkeys(prompts)
            for number in range(num_pictures)
        ]
        return self._draw(orders, settled, on_step, num_candidates=num_pictures)

    def interpolate(
        self,
        first: InputPicture | str,
        last: InputPicture | str,
        *,
        num_pictures: int = 8,
        seed: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[GeneratedPicture]:
        """Pictures on the way from one picture or prompt to another, ends included, all with the same seed.

        Between them along the great circle of their image embeddings (slerp). Raises UsageError for less than two.
        """
        if num_pictures < 2:
            raise UsageError(f"-n {num_pictures}: an interpolation has two ends, so at least 2 pictures")
        settled = self.settled(options, "interpolate")
        ends = []
        for end in (first, last):
            if isinstance(end, str):
                check_prompt(end)
                with _ALONE:
                    ends.append(self._image_embeds([_Order("dream", end, seed)], settled, None)[0])
            else:
                ends.append(self._embeddings([end])[0])
        inputs = tuple(end for end in (first, last) if isinstance(end, InputPicture))
        words = (first if isinstance(first, str) else "", last if isinstance(last, str) else "")
        shown = " → ".join(end if isinstance(end, str) else end.name for end in (first, last))
        orders = [
            _Order(
                "interpolate",
                shown,
                seed,
                image_embed=slerp(ends[0], ends[1], position / (num_pictures - 1)),
                inputs=inputs,
                ends=words,
                extra={"position": round(position / (num_pictures - 1), 4)},
            )
            for position in range(num_pictures)
        ]
        return self._draw(orders, settled, on_step)

    def upscale(
        self,
        pictures: Sequence[InputPicture],
        *,
        start_unet: int = 2,
        seed: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[GeneratedPicture]:
        """The middle square of each picture, made as small as unet `start_unet` - 1 draws it, and enlarged by the unets
        from `start_unet` (from 1) on."""
        settled = replace(self.settled(options, "upscale"), start_unet=start_unet)
        if not 2 <= start_unet <= settled.stop_unet:
            raise UsageError(
                f"unet {start_unet} cannot enlarge a picture: "
                + (
                    "this decoder has one unet, which draws"
                    if self.models.num_unets == 1
                    else f"--stop-unet {settled.stop_unet} ends before it"
                    if settled.stop_unet < start_unet <= self.models.num_unets
                    else f"expected 2 to {settled.stop_unet}"
                )
            )
        embeds = self._embeddings(pictures)
        orders = [
            _Order(
                "upscale",
                "",
                seed,
                image_embed=embed,
                smaller=picture,
                inputs=(picture,),
                extra={"start_unet": start_unet},
            )
            for picture, embed in zip(pictures, embeds, strict=True)
        ]
        return self._draw(orders, settled, on_step)

    def settled(self, options: SamplingOptions | None, kind: str) -> SettledOptions:
        """Every option decided for these models. Raises UsageError for what they cannot do."""
        options = options or SamplingOptions()
        count = self.models.num_unets
        sampler = options.sampler or self._default_sampler(kind)
        if kind == "inpaint" and sampler == "dpm++":
            raise UsageError("--sampler dpm++ cannot repeat a step, as inpainting does; take ddim")
        if options.eta != 1 and sampler != "ddim":
            raise UsageError(f"--eta {options.eta:g}: only ddim has it, and {sampler} draws; add --sampler ddim")
        stop = count if options.stop_unet is None else options.stop_unet
        if not 1 <= stop <= count:
            raise UsageError(f"--stop-unet {stop}: this decoder has {count} unet{'s' * (count > 1)}")
        return SettledOptions(
            sampler=sampler,
            steps=self._settled_steps(options, sampler),
            eta=options.eta,
            cond_scale=self._settled_scales(options),
            prior_cond_scale=self._settled_prior_scale(options),
            prior_steps=self._settled_prior_steps(options),
            negative_prompt=options.negative_prompt.strip(),
            best_of=options.best_of,
            resample_times=options.resample_times,
            start_unet=1,
            stop_unet=stop,
        )

    def _default_sampler(self, kind: str) -> Sampler:
        timesteps = min(int(scheduler.num_timesteps) for scheduler in self.models.decoder.noise_schedulers)
        if self.models.steps >= timesteps:
            # The recipe asks for sampling as trained.
            return "ddpm"
        return "ddim" if kind == "inpaint" else "dpm++"

    def _settled_steps(self, options: SamplingOptions, sampler: str) -> tuple[int, ...]:
        timesteps = [int(scheduler.num_timesteps) for scheduler in self.models.decoder.noise_schedulers]
        if sampler == "ddpm":
            if options.steps is not None:
                raise UsageError("--steps: ddpm takes every timestep; choose another --sampler for fewer")
            return tuple(timesteps)
        steps = _one_each(self.models.steps if options.steps is None else options.steps, len(timesteps), "--steps")
        for number, most in zip(steps, timesteps, strict=True):
            if not 1 <= number < most:
                raise UsageError(f"--steps {number}: expected 1 to {most - 1} (--sampler ddpm takes all {most})")
        return tuple(int(number) for number in steps)

    def _settled_scales(self, options: SamplingOptions) -> tuple[float, ...]:
        models = self.models
        scale = models.cond_scale if options.cond_scale is None else options.cond_scale
        if scale is None:
            scale = NEGATIVE_COND_SCALE if options.negative_prompt.strip() else 1.0
        scales = _one_each(scale, models.num_unets, "--cond-scale")
        if not models.guides_decoder and not options.negative_prompt.strip() and any(each != 1 for each in scales):
            raise UsageError(
                f"--cond-scale {max(scales):g}: this decoder was trained without dropping its condition "
                "(decoder.image_cond_drop_prob = 0), so it can only do 1"
            )
        # A unet without a condition gives the same with it and without.
        unets = models.decoder.unets
        return tuple(float(each) if is_conditioned(unet) else 1.0 for each, unet in zip(scales, unets, strict=True))

    def _settled_prior_scale(self, options: SamplingOptions) -> float:
        if options.prior_cond_scale != 1 and not self.models.guides_prior:
            raise UsageError(
                f"--prior-cond-scale {options.prior_cond_scale:g}: this prior was trained without dropping its words "
                "(prior.cond_drop_prob = 0, or weights of dalle2-pytorch 1.0 to 1.3), so it can only do 1"
            )
        return options.prior_cond_scale

    def _settled_prior_steps(self, options: SamplingOptions) -> int:
        timesteps = int(self.models.prior.noise_scheduler.num_timesteps)
        steps = options.prior_steps
        if steps is None:
            steps = int(self.models.prior.sample_timesteps or timesteps)
        if not 2 <= steps <= timesteps:
            raise UsageError(f"--prior-steps {steps}: expected 2 to {timesteps}")
        return steps

    def _draw(
        self,
        orders: Sequence[_Order],
        options: SettledOptions,
        on_step: OnStep | None = None,
        num_candidates: int = 1,
    ) -> Iterator[GeneratedPicture]:
        """Check now, draw when asked for the first picture."""
        for order in orders:
            # A variation needs no words; those of an interpolation were checked one by one.
            if order.kind in ("dream", "inpaint") or (order.kind == "variation" and order.prompt):
                check_prompt(order.prompt)
        if options.negative_prompt:
            check_prompt(options.negative_prompt)
        if not orders:
            return iter(())
        if options.negative_prompt:
            self._check_negative(options, orders[0])
        if options.best_of > 1 and orders[0].kind == "interpolate":
            raise UsageError("--best-of: the pictures of an interpolation belong together; none is chosen")
        return self._drawn(_candidates(orders, options.best_of, num_candidates), options, on_step)

    def _check_negative(self, options: SettledOptions, order: _Order) -> None:
        asks_prior = order.kind in ("dream", "inpaint") or any(order.ends or ())
        if not (asks_prior and options.prior_cond_scale != 1) and not _guides(options):
            raise UsageError(
                "--negative would change nothing: guidance is 1, or no unet that draws has a condition; set "
                f"--cond-scale{' or --prior-cond-scale' if asks_prior else ''} above 1"
            )

    def _drawn(
        self, orders: list[_Order], options: SettledOptions, on_step: OnStep | None
    ) -> Iterator[GeneratedPicture]:
        waiting: list[GeneratedPicture] = []
        first, size = 0, BATCH
        while first < len(orders):
            batch = orders[first : first + size]
            try:
                with _ALONE:
                    made = self._make(batch, options, on_step)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                size = self._halved(len(batch), error)
                continue
            first += len(batch)
            waiting += made
            while len(waiting) >= options.best_of:
                candidates, waiting = waiting[: options.best_of], waiting[options.best_of :]
                yield max(candidates, key=_score)

    def _halved(self, size: int, error: BaseException) -> int:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise StageError(
                f"one picture does not fit into the free memory of {self.models.device}; wait until a training on it "
                "has ended, or draw with --device cpu"
            ) from error
        log.info("%d pictures at a time do not fit into the memory: %d", size, size // 2)
        return size // 2

    @torch.inference_mode()
    def _make(self, batch: Sequence[_Order], options: SettledOptions, on_step: OnStep | None) -> list[GeneratedPicture]:
        steps = _Steps(on_step, _num_steps(batch, options))
        embeds = self._image_embeds(batch, options, steps)
        negative = self._negative(batch, options, steps)
        pictures = self._decoded(batch, embeds, negative, options, steps)
        images = [
            order.repainting.finished(picture) if order.repainting is not None else picture
            for order, picture in zip(batch, to_pictures(pictures), strict=True)
        ]
        embeddings, captions = self.models.clip.embed(images, [order.prompt for order in batch])
        rows = zip(batch, images, embeddings.astype(np.float32), captions.astype(np.float32), strict=True)
        made = []
        for order, image, embedding, caption in rows:
            scores = {}
            if order.prompt and order.kind in ("dream", "inpaint"):
                scores["clip"] = float(embedding @ caption)
            elif order.image_embed is not None:
                scores["clip_input"] = float(embedding @ order.image_embed.float().cpu().numpy())
            made.append(GeneratedPicture(image, self._origin(order, options), scores, embedding))
        return made

    def _image_embeds(self, batch: Sequence[_Order], options: SettledOptions, steps: _Steps | None) -> torch.Tensor:
        """Image embeddings `(n, dim)` of a batch: its own, or the prior's for its prompts."""
        if all(order.image_embed is not None for order in batch):
            return torch.stack([order.image_embed for order in batch]).to(self.models.device)  # type: ignore[misc]
        return self._guessed([order.prompt for order in batch], [order.seed for order in batch], options, steps)

    @torch.inference_mode()
    def _guessed(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        options: SettledOptions,
        steps: _Steps | None,
        *,
        is_negative: bool = False,
    ) -> torch.Tensor:
        prior = self.models.prior
        condition = self._words(prompts, prior.condition_on_text_encodings)
        negative = None
        if options.negative_prompt and options.prior_cond_scale != 1 and not is_negative:
            negative = self._words([options.negative_prompt] * len(prompts), prior.condition_on_text_encodings)
        scale = 1.0 if is_negative else options.prior_cond_scale
        before, prior.sample_timesteps = prior.sample_timesteps, options.prior_steps
        try:
            with guided_prior(prior, scale, negative=negative, on_step=steps), NoiseByPicture("prior", seeds):
                return guess(prior, condition, self.models.dim)
        finally:
            prior.sample_timesteps = before

    def _words(self, prompts: Sequence[str], reads_words: bool) -> dict[str, torch.Tensor]:
        """What the prior is told: `text_embed` `(n, dim)`, and `text_encodings` `(n, 77, dim)` if it reads words."""
        clip, device = self.models.clip, self.models.device
        condition = {"text_embed": torch.from_numpy(clip.embed_captions(list(prompts))).to(device)}
        if reads_words and self.models.words is not None:
            condition["text_encodings"] = self.models.words(list(prompts)).to(device)
        return condition

    def _negative(
        self, batch: Sequence[_Order], options: SettledOptions, steps: _Steps
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """What the decoder is led away from: image embeddings, and words if it reads them."""
        if not options.negative_prompt or not _guides(options):
            return None
        prompts = [options.negative_prompt] * len(batch)
        embeds = self._guessed(prompts, [order.seed for order in batch], options, steps, is_negative=True)
        return embeds, self._encodings(prompts)

    def _words_of(self, batch: Sequence[_Order]) -> torch.Tensor | None:
        """The words of each picture, if the decoder reads words; between two ends a mixture of theirs."""
        ends = [order.ends for order in batch if order.ends is not None]
        if not ends:
            return self._encodings([order.prompt for order in batch])
        first, last = (self._encodings(prompts) for prompts in zip(*ends, strict=True))
        if first is None or last is None:
            return None
        positions = torch.tensor([order.extra["position"] for order in batch], device=first.device)
        return torch.lerp(first, last, positions[:, None, None])

    def _encodings(self, prompts: Sequence[str]) -> torch.Tensor | None:
        if not self.models.decoder.condition_on_text_encodings or self.models.words is None:
            return None
        return self.models.words(list(prompts)).to(self.models.device)

    def _decoded(
        self,
        batch: Sequence[_Order],
        embeds: torch.Tensor,
        negative: tuple[torch.Tensor, torch.Tensor | None] | None,
        options: SettledOptions,
        steps: _Steps,
    ) -> torch.Tensor:
        """Pictures `(n, 3, size, size)` in 0..1 through the unets from `start_unet` to `stop_unet`."""
        decoder = self.models.decoder
        encodings = self._words_of(batch)
        pictures: torch.Tensor | None = None
        if options.start_unet > 1:
            size = decoder.image_sizes[options.start_unet - 2]
            smaller = [order.smaller.square(size) for order in batch if order.smaller is not None]
            pictures = torch.stack(smaller).to(self.models.device)
        for number in range(options.start_unet, options.stop_unet + 1):
            unet = decoder.unets[number - 1]
            with NoiseByPicture("decoder" if number == 1 else f"unet {number}", [order.seed for order in batch]):
                lowres, level = (None, None) if pictures is None else lowres_condition(decoder, number, pictures)
                guided = GuidedUnet(
                    unet,
                    options.cond_scale[number - 1],
                    negative_embed=negative[0] if negative else None,
                    negative_encodings=negative[1] if negative else None,
                    autocast=autocast(self.precision, self.models.device),
                    on_step=steps,
                )
                pictures = sample_unet(
                    decoder,
                    number,
                    guided,
                    Condition(embeds, encodings if unet.cond_on_text_encodings else None, lowres, level),
                    sampler=options.sampler,
                    steps=options.steps[number - 1],
                    eta=options.eta,
                    known=self._known(batch, int(decoder.image_sizes[number - 1])),
                    resample_times=options.resample_times,
                )
        assert pictures is not None
        return pictures

    def _known(self, batch: Sequence[_Order], size_px: int) -> Known | None:
        repaintings = [order.repainting for order in batch if order.repainting is not None]
        if not repaintings:
            return None
        # Several pictures of one photo see the same.
        distinct = {id(repainting): repainting for repainting in repaintings}
        seen_by = {key: repainting.seen(size_px) for key, repainting in distinct.items()}
        seen = [seen_by[id(repainting)] for repainting in repaintings]
        images, keep = (torch.stack(rows).to(self.models.device) for rows in zip(*seen, strict=True))
        return Known(images, keep)

    def _embeddings(self, pictures: Sequence[InputPicture]) -> list[torch.Tensor]:
        """CLIP's embedding of each picture, `(dim,)` of unit length."""
        embeds = []
        for first in range(0, len(pictures), BATCH):
            images = [picture.image for picture in pictures[first : first + BATCH]]
            rows, _ = self.models.clip.embed(images, [""] * len(images))
            embeds += list(torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1))
        return embeds

    def _origin(self, order: _Order, options: SettledOptions) -> dict[str, Any]:
        """How a picture was made, as its PNG records it."""
        models = self.models
        is_led_away = bool(options.negative_prompt) and _guides(options)
        uses_prior = order.image_embed is None or order.kind == "interpolate" or is_led_away
        drawing = slice(options.start_unet - 1, options.stop_unet)
        origin: dict[str, Any] = {
            "kind": order.kind,
            "prompt": order.prompt,
            "seed": order.seed,
            "sampler": options.sampler,
            "steps": list(options.steps[drawing]),
            "cond_scale": list(options.cond_scale[drawing]),
            "precision": self.precision,
            "clip": models.clip_name,
            "prior": models.prior_weights.origin if uses_prior else None,
            # One for each unet that drew.
            "decoder": [weights.origin for weights in models.unet_weights[drawing]],
            **order.extra,
        }
        if uses_prior:
            origin |= {"prior_steps": options.prior_steps, "prior_cond_scale": options.prior_cond_scale}
        if options.sampler == "ddim":
            origin["eta"] = options.eta
        if options.negative_prompt:
            origin["negative_prompt"] = options.negative_prompt
        if order.repainting is not None:
            origin["resample_times"] = options.resample_times
        if order.inputs:
            origin["inputs"] = [picture.origin for picture in order.inputs]
        return origin


class _Steps:
    """Counts the steps of a batch's networks, and tells who asked."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def __call__(self) -> None:
        if self._on_step is not None:
            self._on_step(min(self._done, self._total), self._total)
        self._done += 1


def _num_steps(batch: Sequence[_Order], options: SettledOptions) -> int:
    steps = sum(options.steps[options.start_unet - 1 : options.stop_unet])
    if batch[0].repainting is not None:
        steps *= options.resample_times
    guesses = int(batch[0].image_embed is None)
    guesses += int(bool(options.negative_prompt) and _guides(options))
    return steps + guesses * options.prior_steps


def _guides(options: SettledOptions) -> bool:
    """Whether a unet that draws is guided."""
    return any(scale != 1 for scale in options.cond_scale[options.start_unet - 1 : options.stop_unet])


def _candidates(orders: Sequence[_Order], best_of: int, num_pictures: int) -> list[_Order]:
    """`best_of` orders in the place of each, with seeds that no other picture of the same prompt has: each candidate
    is what its seed alone would draw."""
    if best_of == 1:
        return list(orders)
    candidates = []
    for position, order in enumerate(orders):
        number = position % num_pictures
        first = order.seed - number
        candidates += [replace(order, seed=first + number * best_of + candidate) for candidate in range(best_of)]
    return candidates


def _score(made: GeneratedPicture) -> float:
    return made.scores.get("clip", made.scores.get("clip_input", 0.0))


def _one_each(value: float | tuple[float, ...], count: int, option: str) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) == 1:
        return value * count
    if len(value) != count:
        raise UsageError(f"{option} has {len(value)} numbers: expected one, or one for each of the {count} unets")
    return value


def _is_out_of_memory(error: BaseException) -> bool:
    """A GPU that a training fills also fails in cuBLAS, or with an error that is no OutOfMemoryError."""
    signs = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def slerp(first: torch.Tensor, last: torch.Tensor, position: float) -> torch.Tensor:
    """The point at `position` (0 = first, 1 = last) of the great circle through two vectors of unit length `(dim,)`
    (Shoemake 1985). Not for opposite ones, which no one circle joins; embeddings of one CLIP never are."""
    first, last = first.float().cpu(), last.float().cpu()
    angle = torch.arccos((first @ last).clamp(-1, 1))
    if angle < 1e-4:
        mixed = first * (1 - position) + last * position
    else:
        mixed = (torch.sin((1 - position) * angle) * first + torch.sin(position * angle) * last) / torch.sin(angle)
    return torch.nn.functional.normalize(mixed, dim=-1)
