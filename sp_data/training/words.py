"""Text encodings: the CLIP's vector for each word, for models that read more than the caption's embedding."""

from __future__ import annotations

import torch

from sp_data.dataset.embed.clip import Clip
from sp_data.errors import StageError


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
