"""A decoder that memorised its pictures against a healthy one, told apart by the measures and their thresholds.

Both are equal, train equally long, and draw from the embeddings of the same unseen kids. One knows 1,500 kids, the
other 20. Each takes five minutes of one thread. To see the figures:

    pytest tests/integration/training/test_memorised.py -n0 --log-cli-level INFO
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from sp_data.dataset.embed.clip import Clip, load_clip
from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import Kid, caption, kids
from sp_data.training.measures.decoder import DecoderMeasures, decoder_measures
from sp_data.training.measures.overfitting import Overfitting, overfitting

SIZE_PX, STEPS, BATCH, LEARNING_RATE = 32, 700, 16, 1e-3
NUM_UNSEEN = 300
EVALUATE_EVERY, NUM_EVALUATED = 50, 100
# The thresholds were fixed on the kids of other seeds.
TRAINING_SEED, UNSEEN_SEED = 21, 22

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Judged:
    measures: DecoderMeasures
    overfitting: Overfitting | None


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_twenty_pictures_trained_long_are_memorised_and_1500_are_not() -> None:
    healthy, memorised = _trained_on(1500), _trained_on(20)
    assert memorised.measures.memory.memorised
    assert not healthy.measures.memory.memorised
    assert memorised.measures.distance.far
    assert not healthy.measures.distance.far
    assert memorised.overfitting is not None
    assert healthy.overfitting is None
    # The margins by which the thresholds were chosen.
    assert healthy.measures.figures["pulled"] <= 0.5
    assert memorised.measures.figures["cmmd"] >= 4 * healthy.measures.figures["cmmd"]


def _trained_on(num_kids: int) -> Judged:
    clip = load_clip("demo", 128)
    training, unseen = kids(num_kids, TRAINING_SEED), kids(NUM_UNSEEN, UNSEEN_SEED)
    known, originals = _drawn(training), _drawn(unseen)
    known_rows, original_rows = _embedded(clip, known), _embedded(clip, originals)
    torch.manual_seed(0)
    decoder = _decoder()
    rows = _train(decoder, known, known_rows, originals, original_rows)
    pictures = _sample(decoder, original_rows)
    captions = clip.embed_captions([caption(kid) for kid in unseen])
    measures = decoder_measures(_embedded(clip, pictures), original_rows, captions, known_rows)
    judged = Judged(measures, overfitting(rows))
    log.info("%d kids: %s", num_kids, {name: round(value, 4) for name, value in measures.figures.items()})
    for sentence in (*measures.sentences, judged.overfitting):
        log.info("%s", sentence)
    return judged


def _decoder() -> Any:
    from dalle2_pytorch import Decoder, Unet, dalle2_pytorch

    dalle2_pytorch.tqdm = partial(tqdm, disable=True)
    unet = Unet(
        dim=24,
        dim_mults=(1, 2, 4),
        cond_dim=64,
        image_embed_dim=128,
        num_resnet_blocks=1,
        self_attn=False,
        init_cross_embed=False,
        attn_heads=4,
        attn_dim_head=32,
    )
    return Decoder(
        unet=(unet,),
        image_sizes=(SIZE_PX,),
        timesteps=1000,
        sample_timesteps=(16,),
        learned_variance=False,
        predict_v=True,
        image_cond_drop_prob=0.0,
        text_cond_drop_prob=0.0,
    )


def _train(
    decoder: Any, known: list[Image.Image], known_rows: Rows, unseen: list[Image.Image], unseen_rows: Rows
) -> list[dict[str, Any]]:
    """Rows of step, loss and val_loss, as metrics.jsonl has them. Pictures are taken at random."""
    pictures, embeddings = _pixels(known), torch.from_numpy(known_rows)
    val_pictures, val_embeddings = _pixels(unseen[:NUM_EVALUATED]), torch.from_numpy(unseen_rows[:NUM_EVALUATED])
    optimizer = torch.optim.AdamW(decoder.unets[0].parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    rows: list[dict[str, Any]] = []
    losses: list[float] = []
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, step / 50) * (1 - (step - 1) / STEPS)
        chosen = torch.randint(len(pictures), (BATCH,))
        loss = _loss(decoder, pictures[chosen], embeddings[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.unets[0].parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
        if step % EVALUATE_EVERY == 0:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                val_loss = _loss(decoder, val_pictures, val_embeddings).item()
            rows.append({"step": step, "loss": float(np.mean(losses)), "val_loss": val_loss})
            losses.clear()
    return rows


def _loss(decoder: Any, pictures: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        loss: torch.Tensor = decoder(pictures, image_embed=embeddings.clone(), unet_number=1)
    return loss


@torch.inference_mode()
def _sample(decoder: Any, embeddings: Rows) -> list[Image.Image]:
    decoder.eval()
    pictures: list[Image.Image] = []
    with torch.autocast("cpu", torch.bfloat16):
        for part in torch.from_numpy(embeddings).split(50):
            images = decoder.sample(image_embed=part, cond_scale=1.0).float().clamp(0, 1)
            pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            pictures.extend(Image.fromarray(picture) for picture in pixels)
    return pictures


def _drawn(crowd: list[Kid]) -> list[Image.Image]:
    return [draw(kid, SIZE_PX) for kid in crowd]


def _pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """`(n, 3, size, size)` float32 in 0..1."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255


def _embedded(clip: Clip, pictures: list[Image.Image]) -> Rows:
    parts = [pictures[first : first + 100] for first in range(0, len(pictures), 100)]
    return np.concatenate([clip.embed(part, [""] * len(part))[0] for part in parts]).astype(np.float32)
