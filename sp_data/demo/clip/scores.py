"""How well the demo's CLIP understands kids that it never saw; loads it as clip-retrieval does."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from all_clip import load_clip
from numpy.typing import NDArray

from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import COLOURS, HAT_KINDS, HELD_OUT, PLACES, Kid, caption, kids
from sp_data.demo.kids.phrases import ATTRIBUTES

SEED = 777  # used nowhere else
BATCH = 64
PROMPTS = {
    "coat": "a kid in a {} coat",
    "hat": "a kid with a {} hat",
    "hat_kind": "a kid in a {}",
    "hair": "a kid with {} hair",
    "skin": "a kid with {} skin",
    "place": "a kid at the {}",
}
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares between 0 and 1. Chance is 1/8 for coat and hat, 1/4 for the rest, 1/1024 and 1/64 for the last two."""

    num_kids: int
    zero_shot: dict[str, float]  # by attribute
    cosine: float  # of a picture and its own caption, on average
    other_cosine: float  # of a picture and another picture's caption, on average
    caption: float  # pictures whose own caption is the nearest of all 8 x 8 x 4 x 4
    held_out: float  # held-out pairs whose caption is nearest to their own place among the images


class DemoClip:
    """The model of a `hf_clip:` folder; vectors have unit length, float32, one row an input."""

    def __init__(self, folder: Path) -> None:
        self.model, self.preprocess, self.tokenize = load_clip(f"hf_clip:{folder}", use_jit=False, device="cpu")

    def images(self, crowd: list[Kid]) -> Vectors:
        rows = [self.model.encode_image(self._pixels(crowd[at : at + BATCH])) for at in range(0, len(crowd), BATCH)]
        return _unit(torch.cat(rows))

    def texts(self, texts: list[str]) -> Vectors:
        return _unit(self.model.encode_text(self.tokenize(texts)))

    def _pixels(self, crowd: list[Kid]) -> torch.Tensor:
        return torch.stack([self.preprocess(draw(kid)) for kid in crowd])


@torch.inference_mode()
def score(folder: Path, num_kids: int = 512) -> Scores:
    """Measures the CLIP in `folder` on `num_kids` kids that it was not trained on."""
    clip, unseen = DemoClip(folder), kids(num_kids, SEED)
    images = clip.images(unseen)
    zero_shot = {}
    for attribute, prompt in PROMPTS.items():
        values = ATTRIBUTES[attribute]
        nearest = (images @ clip.texts([prompt.format(value) for value in values]).T).argmax(1)
        zero_shot[attribute] = float(
            np.mean([values[at] == getattr(kid, attribute) for at, kid in zip(nearest, unseen, strict=True)])
        )
    similarity = images @ clip.texts([caption(kid) for kid in unseen]).T
    captions = [
        f"a kid in a {coat} coat and a {hat} {kind} at the {place}"
        for coat, hat, kind, place in itertools.product(COLOURS, COLOURS, HAT_KINDS, PLACES)
    ]
    nearest_captions = (images @ clip.texts(captions).T).argmax(1)
    return Scores(
        num_kids=num_kids,
        zero_shot=zero_shot,
        cosine=float(similarity.diagonal().mean()),
        other_cosine=float(similarity[~np.eye(num_kids, dtype=bool)].mean()),
        caption=float(
            np.mean([captions[at] == caption(kid) for at, kid in zip(nearest_captions, unseen, strict=True)])
        ),
        held_out=_held_out(clip, unseen, images),
    )


def _held_out(clip: DemoClip, crowd: list[Kid], images: Vectors) -> float:
    """The share of held-out pairs whose caption is nearest to their own place, of all 64 pairs' places.

    A pair's place among the images is (mean of its coat) + (mean of its hat) - (mean of all): it needs no picture of
    the pair.
    """

    def mean(attribute: str, value: str) -> Vectors:
        centre: Vectors = images[[getattr(kid, attribute) == value for kid in crowd]].mean(0)
        return centre

    pairs = list(itertools.product(COLOURS, COLOURS))
    places = np.stack([mean("coat", coat) + mean("hat", hat) - images.mean(0) for coat, hat in pairs])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    held_out = sorted(HELD_OUT)
    nearest = (clip.texts([f"a kid in a {coat} coat and a {hat} hat" for coat, hat in held_out]) @ places.T).argmax(1)
    return float(np.mean([pairs[at] == pair for at, pair in zip(nearest, held_out, strict=True)]))


def _unit(rows: torch.Tensor) -> Vectors:
    unit: Vectors = rows.float().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit
