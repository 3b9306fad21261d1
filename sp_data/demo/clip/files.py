"""The demo's CLIP as a folder of files: its architecture and its vocabulary, and how both are written for loading.

clip-retrieval tokenizes for every model with OpenAI's vocabulary of 49,408 entries, of which captions use 60. Training
uses only these, and one unknown word for all others; the saved file has the full table. So the model reads a name, or
any other word that it never saw, as 'some word' instead of as noise.
"""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import clip
import torch
from clip.simple_tokenizer import bytes_to_unicode, default_bpe
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from sp_data.demo.kids.phrases import WORDS, Phrase

IMAGE_PX = 64
DIM = 128
MAX_TOKENS = 77
TRAINED_TOKENS = 40  # no caption of the demo is longer; later positions repeat the last trained one
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
    # The dtype is the one the model computes in; without it newer loaders would take the file's, float16.
    clip_config: CLIPConfig = CLIPConfig(  # type: ignore[no-untyped-call]
        **towers, projection_dim=DIM, dtype="float32", architectures=["CLIPModel"]
    )
    return clip_config


class SmallVocabulary:
    """OpenAI's token ids <-> ids of the few tokens that captions use; 0 is any other token."""

    def __init__(self) -> None:
        used = {int(token) for word in WORDS.split() for token in clip.tokenize(word)[0]} - {0, START_TOKEN, END_TOKEN}
        self.known = [START_TOKEN, *sorted(used), END_TOKEN]
        self.start, self.end, self.size = 1, len(self.known), len(self.known) + 1
        self.small_of = torch.zeros(END_TOKEN + 1, dtype=torch.long)
        self.small_of[self.known] = torch.arange(1, self.size)

    def tokens(self, phrases: list[Phrase]) -> Tensor:
        """`(n, 40)` int64."""
        return self.small_of[clip.tokenize([phrase.text for phrase in phrases], truncate=True)[:, :TRAINED_TOKENS]]


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
    (folder / "model.safetensors").chmod(0o644)  # it was written with permissions for its owner alone
    config(END_TOKEN + 1, START_TOKEN, END_TOKEN).to_json_file(folder / "config.json")
    _write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    _write_json(folder / "tokenizer_config.json", TOKENIZER)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Writes vocab.json and merges.txt: the vocabulary that the clip package ships, in Hugging Face's form.

    The order of ids is clip.simple_tokenizer's: bytes, bytes at a word's end, merges, the two special tokens.
    """
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
