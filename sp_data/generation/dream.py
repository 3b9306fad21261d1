"""Dream: words -> CLIP's text embedding -> prior -> image embedding -> decoder -> picture.

Each picture depends on its prompt, its seed, the options and the checkpoints; all of these are written into the PNG.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin

from sp_data.errors import CorruptFile, StageError, UsageError
from sp_data.generation.models import Models, load_models
from sp_data.generation.noise import NoiseByPicture
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.runtime.progress import SILENT, Progress
from sp_data.training.decoder import draw, to_pictures
from sp_data.training.prior import guess

CHUNK = "sp-data"
"""Name of the PNG's text chunk that records how the picture was made."""
GENERATED = "generated"
BATCH = 16
SLUG_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Order:
    """A picture to make."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Options of sampling, beside prompt and seed; None: as the decoder was configured."""

    cond_scale: float = 1.0
    """Above 1 follows the embedding more closely; needs a decoder trained with image_cond_drop_prob."""
    steps: int | None = None
    """Steps of the decoder's sampler."""


@dataclass(frozen=True, slots=True)
class Dreamt:
    picture: Image.Image
    order: Order
    origin: dict[str, Any]
    """Prompt, seed, options, checkpoints with digests, datasets: what the PNG records."""

    def png(self) -> bytes:
        """The PNG; equal pictures of equal origin give equal bytes."""
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(self.origin, sort_keys=True, ensure_ascii=False))
        out = io.BytesIO()
        self.picture.save(out, "PNG", pnginfo=info)
        return out.getvalue()

    @property
    def file_name(self) -> str:
        """Readable by its prompt; different for each prompt, seed and origin."""
        words = re.sub(r"[^\w]+", "-", self.order.prompt.lower()).strip("-")[:SLUG_LENGTH].strip("-") or "picture"
        digest = hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode()).hexdigest()[:8]
        return f"{words}-seed-{self.order.seed}-{digest}.png"


def orders(prompts: Sequence[str], num_pictures: int, seed: int) -> list[Order]:
    """`num_pictures` of each prompt, with seeds `seed`, `seed` + 1, …; a repeated prompt counts once."""
    return [Order(prompt, seed + number) for prompt in dict.fromkeys(prompts) for number in range(num_pictures)]


@torch.inference_mode()
def dream(models: Models, orders: Sequence[Order], options: SamplingOptions | None = None) -> Iterator[Dreamt]:
    """Make the pictures, a batch at a time, in the order of `orders`.

    Raises UsageError if these models do not support `options`, or a prompt is empty; StageError if the GPU's memory is
    too small.
    """
    options = options or SamplingOptions()
    check(models, orders, options)
    for first in range(0, len(orders), BATCH):
        batch = orders[first : first + BATCH]
        try:
            pictures = _make(models, batch, options)
        except torch.OutOfMemoryError as error:
            raise StageError(
                f"a batch of {len(batch)} pictures does not fit into the GPU's free memory; wait until a training on "
                "it has ended, or draw with --device cpu"
            ) from error
        for order, picture in zip(batch, pictures, strict=True):
            yield Dreamt(picture, order, describe(models, order, options))


def dream_files(
    recipe: Recipe,
    lake: Lake,
    orders: Sequence[Order],
    options: SamplingOptions,
    checkpoint: list[str] | None = None,
    out: Path | None = None,
    *,
    device: str = "auto",
    progress: Progress = SILENT,
) -> list[tuple[str, dict[str, Any]]]:
    """Make pictures and write each as a PNG, into `out` or else into the lake; returns (path, origin) of each.

    Raises what `load_models` and `dream` raise.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    models = load_models(recipe, lake, checkpoint, device)
    progress.begin("dream", len(orders), "pictures")
    pictures = []
    for dreamt in dream(models, orders, options):
        if out is None:
            # Without a lock: equal names mean equal bytes.
            path = f"{GENERATED}/{dreamt.file_name}"
            lake.write_bytes(path, dreamt.png())
            pictures.append((lake.full(path), dreamt.origin))
        else:
            target = out / dreamt.file_name
            # Under another name first, so that nobody sees an incomplete picture.
            unfinished = target.with_name(f".{target.name}.part")
            unfinished.write_bytes(dreamt.png())
            unfinished.replace(target)
            pictures.append((str(target), dreamt.origin))
        progress.advance()
    return pictures


def check(models: Models, orders: Sequence[Order], options: SamplingOptions) -> None:
    if any(not order.prompt.strip() for order in orders):
        raise UsageError('an empty prompt: say what to draw, such as "a kid in a red coat"')
    if options.cond_scale != 1 and not models.decoder.image_cond_drop_prob:
        raise UsageError(
            f"--cond-scale {options.cond_scale:g}: this decoder was trained without dropping its condition "
            "(decoder.image_cond_drop_prob = 0), so it can only do 1"
        )
    timesteps = int(models.decoder.noise_schedulers[0].num_timesteps)  # type: ignore[index,union-attr]
    if options.steps is not None and not 1 <= options.steps <= timesteps:
        raise UsageError(f"--steps {options.steps}: expected 1 to {timesteps}")


def _make(models: Models, batch: Sequence[Order], options: SamplingOptions) -> list[Image.Image]:
    prompts, seeds = [order.prompt for order in batch], [order.seed for order in batch]
    condition = {"text_embed": torch.from_numpy(models.clip.embed_captions(prompts)).to(models.device)}
    encodings = models.words(prompts).to(models.device) if models.words is not None else None
    if models.prior.condition_on_text_encodings and encodings is not None:
        condition["text_encodings"] = encodings
    with NoiseByPicture("prior", seeds):
        image_embed = guess(models.prior, condition, models.dim)
    with NoiseByPicture("decoder", seeds):
        drawn = draw(
            models.decoder,
            image_embed,
            encodings if models.decoder.condition_on_text_encodings else None,
            steps=options.steps,
            cond_scale=options.cond_scale,
        )
    return to_pictures(drawn)


def describe(models: Models, order: Order, options: SamplingOptions) -> dict[str, Any]:
    """The origin of a picture, as its PNG records it."""
    prior, *unets = (
        {"run": one.run, "step": one.step, "weights": one.digest, "dataset": one.dataset}
        for one in (models.prior_checkpoint, *models.unet_checkpoints)
    )
    return {
        "prompt": order.prompt,
        "seed": order.seed,
        "cond_scale": options.cond_scale,
        # A module's attributes are typed as tensors or modules; this one is a tuple, one entry a unet.
        "steps": options.steps or models.decoder.sample_timesteps[0],  # type: ignore[index]
        "prior_steps": models.prior.sample_timesteps,
        "clip": models.prior_checkpoint.clip,
        "prior": prior,
        # One for each unet.
        "decoder": unets,
    }


def read_origin(data: bytes, name: str) -> dict[str, Any]:
    """The origin that a PNG of `sp-data dream` records. Raises CorruptFile if it records none."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            text = getattr(opened, "text", {}).get(CHUNK)
    except (OSError, SyntaxError) as error:
        raise CorruptFile(f"{name} is not a picture ({error})") from error
    if text is None:
        raise CorruptFile(f"{name} does not say how it was made: expected a PNG of `sp-data dream`")
    origin: dict[str, Any] = json.loads(text)
    return origin
