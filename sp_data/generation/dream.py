"""Dream: words -> CLIP's text embedding -> prior -> image embedding -> decoder -> picture.

Each picture depends on its prompt, its seed and the checkpoints, and all of that is written inside the PNG.
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
"""Name of the PNG's text chunk that tells how the picture was made."""
GENERATED = "generated"
BATCH = 16
SLUG_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Order:
    """A picture that is asked for."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What may be chosen beside words and seed; None: as the decoder was configured."""

    cond_scale: float = 1.0
    """Above 1 follows the embedding more closely; needs a decoder trained with image_cond_drop_prob."""
    steps: int | None = None
    """Of the decoder's sampler."""


@dataclass(frozen=True, slots=True)
class Dreamt:
    picture: Image.Image
    order: Order
    made: dict[str, Any]
    """Prompt, seed, checkpoints with digests, dataset: what the PNG carries."""

    def png(self) -> bytes:
        """Equal pictures made alike are equal bytes."""
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(self.made, sort_keys=True, ensure_ascii=False))
        out = io.BytesIO()
        self.picture.save(out, "PNG", pnginfo=info)
        return out.getvalue()

    @property
    def file_name(self) -> str:
        """Tells the prompt to a person, and never two prompts, seeds or ways to make it alike."""
        words = re.sub(r"[^\w]+", "-", self.order.prompt.lower()).strip("-")[:SLUG_LENGTH].strip("-") or "picture"
        what = hashlib.sha256(json.dumps(self.made, sort_keys=True).encode()).hexdigest()[:8]
        return f"{words}-seed-{self.order.seed}-{what}.png"


def orders(prompts: Sequence[str], num_pictures: int, seed: int) -> list[Order]:
    """`num_pictures` of each prompt, with seeds `seed`, `seed` + 1, …; a prompt that is given twice counts once."""
    return [Order(prompt, seed + number) for prompt in dict.fromkeys(prompts) for number in range(num_pictures)]


@torch.inference_mode()
def dream(models: Models, asked: Sequence[Order], how: SamplingOptions | None = None) -> Iterator[Dreamt]:
    """Make the pictures, a batch at a time, in the order in which they were asked for.

    Raises UsageError if `how` asks for what these models cannot do, or a prompt is empty.
    """
    how = how or SamplingOptions()
    check(models, asked, how)
    for first in range(0, len(asked), BATCH):
        batch = asked[first : first + BATCH]
        try:
            pictures = _make(models, batch, how)
        except torch.OutOfMemoryError as error:
            raise StageError(
                f"{len(batch)} pictures at once do not fit into the GPU's memory beside what is there already; "
                "wait for that training to end, or draw with --device cpu"
            ) from error
        for order, picture in zip(batch, pictures, strict=True):
            yield Dreamt(picture, order, describe(models, order, how))


def dream_files(
    recipe: Recipe,
    lake: Lake,
    asked: Sequence[Order],
    how: SamplingOptions,
    checkpoint: list[str] | None = None,
    out: Path | None = None,
    *,
    device: str = "auto",
    progress: Progress = SILENT,
) -> list[tuple[str, dict[str, Any]]]:
    """Make pictures and write each as a PNG, into `out` or else into the lake; where each lies and what it says.

    Raises what `load_models` and `dream` raise.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    models = load_models(recipe, lake, checkpoint, device)
    progress.begin("dream", len(asked), "pictures")
    made = []
    for dreamt in dream(models, asked, how):
        if out is None:
            # Without a lock: a picture's name tells all that its bytes depend on.
            path = f"{GENERATED}/{dreamt.file_name}"
            lake.write_bytes(path, dreamt.png())
            made.append((lake.full(path), dreamt.made))
        else:
            target = out / dreamt.file_name
            # Under another name first, so that nobody sees half a picture.
            beside = target.with_name(f".{target.name}.part")
            beside.write_bytes(dreamt.png())
            beside.replace(target)
            made.append((str(target), dreamt.made))
        progress.advance()
    return made


def check(models: Models, asked: Sequence[Order], how: SamplingOptions) -> None:
    if any(not order.prompt.strip() for order in asked):
        raise UsageError('an empty prompt: say what to draw, such as "a kid in a red coat"')
    if how.cond_scale != 1 and not models.decoder.image_cond_drop_prob:
        raise UsageError(
            f"--cond-scale {how.cond_scale:g}: this decoder was trained without dropping its condition "
            "(decoder.image_cond_drop_prob = 0), so it can only do 1"
        )
    timesteps = int(models.decoder.noise_schedulers[0].num_timesteps)  # type: ignore[index,union-attr]
    if how.steps is not None and not 1 <= how.steps <= timesteps:
        raise UsageError(f"--steps {how.steps}: expected 1 to {timesteps}")


def _make(models: Models, batch: Sequence[Order], how: SamplingOptions) -> list[Image.Image]:
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
            steps=how.steps,
            cond_scale=how.cond_scale,
        )
    return to_pictures(drawn)


def describe(models: Models, order: Order, how: SamplingOptions) -> dict[str, Any]:
    """What a PNG says of itself."""
    made_by: dict[str, Any] = {
        kind: {"run": one.run, "step": one.step, "weights": one.digest, "dataset": one.dataset}
        for kind, one in models.made_by.items()
    }
    return {
        "prompt": order.prompt,
        "seed": order.seed,
        "cond_scale": how.cond_scale,
        "steps": how.steps or models.decoder.sample_timesteps[0],  # type: ignore[index]
        "prior_steps": models.prior.sample_timesteps,
        "clip": models.made_by["decoder"].clip,
        **made_by,
    }


def read_made(data: bytes, name: str) -> dict[str, Any]:
    """What a PNG of ours says of itself. Raises CorruptFile if it is none."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            said = getattr(opened, "text", {}).get(CHUNK)
    except (OSError, SyntaxError) as error:
        raise CorruptFile(f"{name} is no picture ({error})") from error
    if said is None:
        raise CorruptFile(f"{name} does not say how it was made: expected a PNG of `sp-data dream`")
    made: dict[str, Any] = json.loads(said)
    return made
