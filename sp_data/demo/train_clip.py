"""Trains the demo's tiny CLIP and writes it as the Hugging Face folder that clip-retrieval loads by `hf_clip:`.

    python -m sp_data.demo.train_clip [--steps 900] [--pictures 12000] [--out sp_data/demo/clip]
    python -m sp_data.demo.train_clip --steps 0         # only score what is there

64 px in, 128 numbers out, for images and for text. Pictures are drawn with other seeds than the demo's and pass
through what the road does to them (256 px, JPEG). clip-retrieval tokenizes for every model with OpenAI's vocabulary
of 49,408 entries, of which captions use 60: training sees those and one unknown word for all the rest, and only the
saved file has the full table. So a name, or any word it never met, reads as 'some word' instead of as noise.
"""

import argparse
import gzip
import io
import itertools
import json
import math
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import clip
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from sp_data.demo import clip_folder
from sp_data.demo.artist import Kid, draw, kids
from sp_data.demo.clip_scores import score
from sp_data.demo.phrases import ATTRIBUTES, FACTS, WORDS, Phrase, facts_of, full_phrase, random_phrase

SEED = 20_240_000  # far from the seeds that demos use
IMAGE_PX = 64
DIM = 128
MAX_TOKENS = 77
TRAINED_TOKENS = 40  # no caption of ours is longer; later positions repeat the last trained one
BATCH = 256
START_TOKEN, END_TOKEN = 49406, 49407
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "CLIPProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_PX},
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_PX, "width": IMAGE_PX},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
TOKENIZER = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": MAX_TOKENS,
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "do_lower_case": True,
}


def config(vocab_size: int, start: int, end: int) -> CLIPConfig:
    """The architecture: a 4-layer vision tower and a narrow 3-layer text tower (its table is most of the file)."""
    text = {"vocab_size": vocab_size, "hidden_size": 40, "intermediate_size": 160, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 5, "bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision |= {"image_size": IMAGE_PX, "patch_size": 8}
    towers = {
        name: {**tower, "projection_dim": DIM} for name, tower in (("text_config", text), ("vision_config", vision))
    }
    # The dtype is what the model computes in; without it newer loaders would follow the file, which is float16.
    made: CLIPConfig = CLIPConfig(  # type: ignore[no-untyped-call]
        **towers, projection_dim=DIM, dtype="float32", architectures=["CLIPModel"]
    )
    return made


class SmallVocabulary:
    """OpenAI's token ids <-> the few that captions use: 0 is every other word."""

    def __init__(self) -> None:
        used = {int(token) for word in WORDS.split() for token in clip.tokenize(word)[0]} - {0, START_TOKEN, END_TOKEN}
        self.known = [START_TOKEN, *sorted(used), END_TOKEN]
        self.start, self.end, self.size = 1, len(self.known), len(self.known) + 1
        self.small_of = torch.zeros(END_TOKEN + 1, dtype=torch.long)
        self.small_of[self.known] = torch.arange(1, self.size)

    def tokens(self, phrases: list[Phrase]) -> Tensor:
        """`(n, 40)` int64."""
        return self.small_of[clip.tokenize([phrase.text for phrase in phrases], truncate=True)[:, :TRAINED_TOKENS]]


def photograph(kid: Kid) -> NDArray[np.uint8]:
    """What is left of the picture of `kid` when it reaches CLIP: `(64, 64, 3)`, drawn at 256 px, through JPEG.

    One in six also goes through 32 px, as what the demo's decoder paints does.
    """
    dice = random.Random(f"photograph {kid.name} {kid.number}")
    file = io.BytesIO()
    draw(kid, 256).save(file, "JPEG", quality=dice.randint(88, 96))
    picture: Image.Image = Image.open(file)
    if dice.random() < 1 / 6:
        picture = picture.resize((32, 32), Image.Resampling.BOX)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX)
    return np.asarray(picture.resize((IMAGE_PX, IMAGE_PX), dice.choice(filters)))


def photographs(of: list[Kid]) -> Tensor:
    """`(n, 3, 64, 64)` uint8."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(photograph, of, chunksize=64)))).permute(0, 3, 1, 2).contiguous()


def table(facts: list[frozenset[str]]) -> Tensor:
    """`(n, facts)` float32, 1 where the fact is stated."""
    return torch.tensor([[float(fact in stated) for fact in FACTS] for stated in facts])


def contrastive_loss(similarity: Tensor, stated: Tensor, true: Tensor) -> Tensor:
    """CLIP's symmetric loss over `similarity[image, caption]`, which punishes no caption for being true of an image.

    Captions that state the same facts as an image's own are positives too. Others that happen to be true of it are
    left out. `stated` and `true` are `(n, facts)`: what each caption says, and what holds of each image.
    """
    holds = true @ stated.T == stated.sum(1)
    positive = (stated[:, None] == stated).all(2)
    # Not -inf: times a target of 0 that would be nan.
    logits = similarity.masked_fill(holds & ~positive, -1e4)
    target = positive / positive.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def naming_loss(named: Tensor, facts: Tensor) -> Tensor:
    """How badly the values of attributes are told from `named`, `(n, facts)`; attributes without a fact do not count.

    One linear layer names the facts of images and of captions alike. It leaves with the training, but without it the
    small things (hair, the kind of hat) would take ten times as long to be noticed.
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
        warm, left = min(1.0, (step + 1) / 50), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = 1.5e-3 * warm * left
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
        for columns, said in zip(similarity.chunk(2, dim=1), stated.chunk(2), strict=True):
            loss = loss + contrastive_loss(columns, said, true)
        # Nearest is not yet near: the prior has an easier road between clouds that lie on each other.
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
    """uint8 to float32 in -1..1, as PREPROCESSOR says."""
    return pictures.float() / 127.5 - 1


def save(model: CLIPModel, vocabulary: SmallVocabulary, folder: Path) -> None:
    """Writes the model with OpenAI's full vocabulary, in float16, and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}
    words, positions = (f"text_model.embeddings.{kind}_embedding.weight" for kind in ("token", "position"))
    weights[words] = weights[words][vocabulary.small_of]
    weights[positions] = weights[positions].clone()
    weights[positions][TRAINED_TOKENS:] = weights[positions][TRAINED_TOKENS - 1]
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone
    config(END_TOKEN + 1, START_TOKEN, END_TOKEN).to_json_file(folder / "config.json")
    _write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    _write_json(folder / "tokenizer_config.json", TOKENIZER)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Writes vocab.json and merges.txt: the vocabulary that the clip package ships, in Hugging Face's form.

    The order of ids is clip.simple_tokenizer's: bytes, bytes at a word's end, merges, the two special tokens.
    """
    from clip.simple_tokenizer import bytes_to_unicode, default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().splitlines()
    merges = lines[1 : END_TOKEN - 1 - 512 + 1]
    letters = list(bytes_to_unicode().values())
    entries = itertools.chain(
        letters,
        (letter + "</w>" for letter in letters),
        (merge.replace(" ", "") for merge in merges),
        (TOKENIZER["bos_token"], TOKENIZER["eos_token"]),
    )
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    text = json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
