"""Trains the demo's tiny CLIP and writes it as the Hugging Face folder that clip-retrieval loads by `hf_clip:`.

    python -m sp_data.demo.clip.train [--steps 900] [--pictures 12000] [--out sp_data/demo/clip/model]
    python -m sp_data.demo.clip.train --steps 0         # only score the existing model

64 px in, 128 numbers out, for images and for text. Pictures are drawn with other seeds than the demo's and are
processed as the pipeline processes them (256 px, JPEG). 0.8 s a step on 2 idle cores with AVX-512 bf16: 12 minutes.
"""

import argparse
import io
import math
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from sp_data.demo import clip_folder
from sp_data.demo.clip.files import DIM, IMAGE_PX, SmallVocabulary, config, save
from sp_data.demo.clip.scores import score
from sp_data.demo.kids.artist import Kid, draw, kids
from sp_data.demo.kids.phrases import ATTRIBUTES, FACTS, facts_of, full_phrase, random_phrase

SEED = 20_240_000  # far from the seeds that demos use
BATCH = 256


def photograph(kid: Kid) -> NDArray[np.uint8]:
    """The picture of `kid` as CLIP gets it: `(64, 64, 3)`, drawn at 256 px, through JPEG.

    One in six is scaled down to 32 px in between, the size of the demo decoder's pictures.
    """
    dice = random.Random(f"photograph {kid.name} {kid.number}")
    file = io.BytesIO()
    draw(kid, 256).save(file, "JPEG", quality=dice.randint(88, 96))
    picture: Image.Image = Image.open(file)
    if dice.random() < 1 / 6:
        picture = picture.resize((32, 32), Image.Resampling.BOX)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX)
    return np.asarray(picture.resize((IMAGE_PX, IMAGE_PX), dice.choice(filters)))


def photographs(crowd: list[Kid]) -> Tensor:
    """`(n, 3, 64, 64)` uint8."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return (
            torch.from_numpy(np.stack(list(pool.map(photograph, crowd, chunksize=64)))).permute(0, 3, 1, 2).contiguous()
        )


def table(facts: list[frozenset[str]]) -> Tensor:
    """`(n, facts)` float32, 1 where the fact is stated."""
    return torch.tensor([[float(fact in stated) for fact in FACTS] for stated in facts])


def contrastive_loss(similarity: Tensor, stated: Tensor, true: Tensor) -> Tensor:
    """CLIP's symmetric loss over `similarity[image, caption]`; captions that are true of an image cost nothing.

    Captions that state the same facts as an image's own caption are positives too. Other captions that are true of it
    are left out. `stated` and `true` are `(n, facts)`: what each caption states, and what is true of each image.
    """
    holds = true @ stated.T == stated.sum(1)
    positive = (stated[:, None] == stated).all(2)
    # Not -inf, which times a target of 0 would be nan.
    logits = similarity.masked_fill(holds & ~positive, -1e4)
    target = positive / positive.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def naming_loss(named: Tensor, facts: Tensor) -> Tensor:
    """The error of attribute values read from `named`, `(n, facts)`; attributes without a stated fact do not count.

    One linear layer names the facts of images and of captions alike. It is not saved, but without it small details
    (hair, the kind of hat) would take ten times as long to learn.
    """
    loss, first = torch.zeros(()), 0
    for values in ATTRIBUTES.values():
        columns = slice(first, first + len(values))
        stated = facts[:, columns].any(1)
        if stated.any():
            loss = loss + functional.cross_entropy(named[stated, columns], facts[stated, columns])
        first += len(values)
    return loss


def train(steps: int, num_pictures: int) -> tuple[CLIPModel, SmallVocabulary]:
    """A model over the small vocabulary, in float32."""
    torch.manual_seed(SEED)
    dice = random.Random(SEED)
    vocabulary = SmallVocabulary()
    architecture = config(vocabulary.size, vocabulary.start, vocabulary.end)
    # In bf16 on a CPU, plain attention takes two thirds of the time of torch's fused one at this size.
    architecture._attn_implementation = "eager"
    model = CLIPModel(architecture).train()
    pool = kids(num_pictures, SEED)
    pictures, truth = photographs(pool), table([facts_of(kid) for kid in pool])
    naming = torch.nn.Linear(DIM, len(FACTS))
    parameters = [*model.parameters(), *naming.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.02)
    started = time.perf_counter()
    for step in range(steps):
        warmup, decay = min(1.0, (step + 1) / 50), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = 1.5e-3 * warmup * decay
        chosen = dice.sample(range(num_pictures), BATCH)
        full = [full_phrase(pool[number], name=dice.random() < 0.25) for number in chosen]
        partial = [random_phrase(pool[number], dice) for number in chosen]
        with torch.autocast("cpu", torch.bfloat16):
            images = model.get_image_features(normalised(pictures[chosen]))
            texts = model.get_text_features(vocabulary.tokens(full + partial))
        images, texts = functional.normalize(images.float(), dim=1), functional.normalize(texts.float(), dim=1)
        similarity = images @ texts.T * model.logit_scale.exp().clamp(max=50)
        true, stated = truth[chosen], table([phrase.facts for phrase in full + partial])
        loss = naming_loss(naming(10 * images), true) + naming_loss(naming(10 * texts), stated) / 2
        for columns, caption_facts in zip(similarity.chunk(2, dim=1), stated.chunk(2), strict=True):
            loss = loss + contrastive_loss(columns, caption_facts, true)
        # The contrastive loss makes pairs nearest, but not near: the prior learns more easily where the embeddings of
        # captions and of pictures lie close together.
        loss = loss + 2 * (1 - (images * texts[:BATCH]).sum(1).mean())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            cosine = (images * texts[:BATCH]).sum(1).mean()
            print(
                f"step {step:4d}  loss {loss:.3f}  cosine {cosine:.3f}  {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    return model.eval(), vocabulary


def normalised(pictures: Tensor) -> Tensor:
    """uint8 to float32 in -1..1, as PREPROCESSOR does."""
    return pictures.float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=clip_folder())
    arguments = parser.parse_args()
    if arguments.steps:
        save(*train(arguments.steps, arguments.pictures), arguments.out)
    print(score(arguments.out))


if __name__ == "__main__":
    main()
