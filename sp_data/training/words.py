"""Text encodings: the CLIP's vector for each word, for networks that read more than the caption's embedding.

They are computed once a dataset and kept in the lake, without the zeros after a caption's end:

    words/ViT-L-14-3f2a1b/4d1e…-train.values.f16    (words of all captions, dim) float16, without a header
                          4d1e…-train.ends.npy      (samples,) int64: where each caption ends; written last
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from sp_data.dataset.embed.clip import Clip
from sp_data.dataset.loader.samples import Sample, Samples
from sp_data.errors import StageError
from sp_data.lake import Lake
from sp_data.recipe.training import CLIP_WORDS
from sp_data.training.trained import words_paths

log = logging.getLogger(__name__)

BATCH = 64


class WordEncoder:
    """Captions -> `(n, 77, dim)` float32, zero after the end of a caption."""

    def __init__(self, clip: Clip) -> None:
        """Raises StageError if the text tower is not as wide as the embeddings: dalle2-pytorch has one width."""
        self.clip = clip
        width = self(["a"]).shape[-1]
        if width != clip.dim:
            raise StageError(
                f"this CLIP's text tower is {width} wide, its embeddings {clip.dim}: dalle2-pytorch cannot read its "
                "words; set text_encodings to false (and prior.max_text_len to 1)"
            )

    def __call__(self, captions: list[str]) -> torch.Tensor:
        return torch.from_numpy(self.clip.embed_words(captions)[1])


class SamplesWithWords(Dataset[Sample]):
    """Samples, each with `text_encodings` `(77, dim)` float16, zero after the end of its caption."""

    def __init__(self, samples: Samples, values: Path, ends: Path, dim: int) -> None:
        self.samples, self._dim = samples, dim
        self._ends = np.load(ends, mmap_mode="r")
        num_words = int(self._ends[-1]) if len(self._ends) else 0
        # An empty file cannot be mapped.
        self._values: npt.NDArray[Any] = (
            np.memmap(values, np.float16, "r", shape=(num_words, dim)) if num_words else np.zeros((0, dim), np.float16)
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        first = int(self._ends[index - 1]) if index else 0
        words = self._values[first : int(self._ends[index])]
        encodings = np.zeros((CLIP_WORDS, self._dim), np.float16)
        encodings[: len(words)] = words
        sample["text_encodings"] = torch.from_numpy(encodings)
        return sample


def keep_words(
    samples: Samples, split: str, lake: Lake, clip: str, dataset: str, load: Callable[[], WordEncoder]
) -> None:
    """Encode the captions of a split, unless the lake has them already. `load` gives the encoder when it is needed."""
    values_path, ends_path = words_paths(clip, dataset, split)
    if lake.exists(ends_path):
        return
    encode = load()
    log.info("words: encoding %s captions of the %s split", f"{len(samples):,}", split)
    with lake.scratch("words") as folder:
        lengths: list[int] = []
        with (folder / "values.f16").open("wb") as values:
            for first in range(0, len(samples), BATCH):
                indices = range(first, min(first + BATCH, len(samples)))
                encodings = encode([samples.caption(index) for index in indices]).to(torch.float16).numpy()
                for row in encodings:
                    used = np.flatnonzero(np.any(row != 0, axis=-1))
                    lengths.append(int(used[-1]) + 1 if len(used) else 0)
                    values.write(row[: lengths[-1]].tobytes())
        np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
        lake.publish(folder / "values.f16", values_path)
        lake.publish(folder / "ends.npy", ends_path)


def with_words(
    samples: Samples, split: str, lake: Lake, clip: str, dataset: str, dim: int, stack: contextlib.ExitStack
) -> SamplesWithWords:
    """The samples with the words that `keep_words` left; copies of a remote lake's files last as long as `stack`."""
    values, ends = (stack.enter_context(lake.local(path)) for path in words_paths(clip, dataset, split))
    return SamplesWithWords(samples, values, ends, dim)
