"""The shipped CLIP, loaded as clip-retrieval loads it, understands kids it never saw."""

import random
import subprocess
import sys
from functools import cache

import clip
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import CLIPTokenizer, CLIPTokenizerFast

from sp_data.demo import clip_folder
from sp_data.demo.clip.scores import DemoClip, Scores, score
from sp_data.demo.clip.train import contrastive_loss
from sp_data.demo.kids.kid import caption, kids
from sp_data.demo.kids.phrases import FACTS, WORDS, facts_of, full_phrase, random_phrase


@cache
def scores() -> Scores:
    return score(clip_folder(), num_kids=320)


@pytest.fixture(scope="module")
def model() -> DemoClip:
    return DemoClip(clip_folder())


@pytest.mark.parametrize(
    ("attribute", "at_least"),
    [("coat", 0.97), ("hat", 0.97), ("hat_kind", 0.9), ("hair", 0.9), ("skin", 0.9), ("place", 0.97)],
)
def test_attributes_of_unseen_kids_are_told_without_training_on_them(attribute: str, at_least: float) -> None:
    assert scores().zero_shot[attribute] >= at_least


def test_a_picture_finds_its_caption_among_all_1024() -> None:
    assert scores().caption >= 0.9
    assert scores().cosine > scores().other_cosine + 0.5


def test_pairs_never_drawn_are_still_put_together() -> None:
    assert scores().held_out >= 7 / 8


@torch.inference_mode()
def test_names_and_unknown_words_change_little(model: DemoClip) -> None:
    plain = "a kid in a red coat and a blue beanie at the lake"
    texts = [
        plain,
        f"Ada Birch, {plain}",
        f"Zoë O'Dell, {plain}",
        f"{plain} xyzzy 雪",
        "a kid in a green coat at the hill",
    ]
    vectors = model.texts(texts)
    assert vectors.shape == (5, 128)
    assert np.isfinite(vectors).all()
    similar = vectors @ vectors[0]
    assert similar[1:4].min() > 0.9
    assert similar[4] < 0.5


@torch.inference_mode()
def test_any_text_can_be_embedded(model: DemoClip) -> None:
    vectors = model.texts(["", "!", "Ada samurai " * 100, "🙂", "a" * 500])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-3)


@pytest.mark.parametrize("kind", [CLIPTokenizer, CLIPTokenizerFast])
def test_the_folders_tokenizer_and_clip_retrievals_agree(kind: type[CLIPTokenizer]) -> None:
    """clip-retrieval never reads the tokenizer files; transformers does when it loads the folder."""
    tokenizer = kind.from_pretrained(clip_folder())
    texts = [f"{kid.name}, {caption(kid)}" for kid in kids(60, 8)] + ["Xyzzy the samurai, 1997!"]
    for text in texts:
        theirs = [int(token) for token in clip.tokenize(text)[0] if token]
        assert tokenizer(text).input_ids == theirs


def test_the_files_are_small_and_half_precision() -> None:
    weights = clip_folder() / "model.safetensors"
    assert weights.stat().st_size < 6_500_000
    with safe_open(weights, "np") as tensors:
        assert tensors.get_slice("text_model.embeddings.token_embedding.weight").get_dtype() == "F16"


def test_importing_the_demo_loads_neither_torch_nor_pillow() -> None:
    script = "import sys, sp_data.demo; sys.exit(bool({'torch', 'PIL', 'numpy'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_phrases_say_only_what_is_true_in_words_the_model_knows() -> None:
    rng = random.Random(0)
    known = {int(token) for word in WORDS.split() for token in clip.tokenize(word)[0]}
    for kid in kids(500, 2):
        for phrase in (full_phrase(kid, name=True), random_phrase(kid, rng)):
            assert phrase.facts
            assert phrase.facts <= facts_of(kid) <= set(FACTS)
            text = phrase.text.removeprefix(kid.name)
            assert {int(token) for token in clip.tokenize(text)[0]} <= known, text


def test_a_caption_is_not_punished_for_being_true_of_another_picture() -> None:
    """Two kids in red coats, one with a hat; 'red coat' is the caption of the first and true of both."""
    true = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # facts: red coat, blue hat
    stated = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    far, near = torch.tensor([[5.0, 0.0], [0.0, 5.0]]), torch.tensor([[5.0, 0.0], [5.0, 5.0]])
    assert contrastive_loss(near, stated, true) == pytest.approx(contrastive_loss(far, stated, true))


def test_captions_that_say_the_same_are_all_right() -> None:
    same = torch.ones(2, 1)
    alike, apart = torch.full((2, 2), 3.0), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    assert contrastive_loss(alike, same, same) < contrastive_loss(apart, same, same)
