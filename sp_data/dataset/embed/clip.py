"""A CLIP, loaded by clip-retrieval, and what a recipe's name for one stands for.

Every name that clip-retrieval takes works: `ViT-L/14`, `open_clip:ViT-B-32/laion2b_s34b_b79k`, `hf_clip:/a/folder`,
`/a/file.pt`. `demo` is the project's own tiny model. Weights that lie on this machine are hashed into the stage's
identity, so that other weights under the same file name give another embedding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from sp_data import demo
from sp_data.dataset.embed.clip_retrieval import module
from sp_data.dataset.embed.precision import Precision, RequestedPrecision, choose, in_bf16
from sp_data.errors import SpDataError, StageError, reason_of
from sp_data.recipe.clip_names import DEMO, location
from sp_data.runtime.deferred import deferred
from sp_data.runtime.threads import patient_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

UNUSED = ("boto3", "scipy", "sklearn")
"""What transformers and accelerate import for tasks that are none of ours, at the cost of another torch."""


def clip_retrieval_name(clip_model: str) -> str:
    """What clip-retrieval calls this model."""
    return f"hf_clip:{demo.clip_folder()}" if clip_model == DEMO else clip_model


def weights_digest(clip_model: str) -> str | None:
    """sha256 (hex) over the files of a model that lies on this machine; None for one that has a public name."""
    path = Path(location(clip_retrieval_name(clip_model)))
    if not path.is_absolute() or not path.exists():
        return None
    # What is no file, such as a device, may have no end.
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    hasher = hashlib.sha256()
    for file in files:
        if file.is_file():
            hasher.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Clip:
    """A loaded model with what clip-retrieval's reader and mapper need."""

    mapper: Callable[[dict[str, Any]], dict[str, Any]]
    preprocess: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    device: str
    dim: int
    precision: Precision
    model: Any
    """The model in its own precision, whatever the mapper's is."""

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context for computing many batches: no gradients, and nothing is kept for them. Autocast converts the
        weights to bfloat16 for each batch here, and is faster than in no_grad, where it keeps them
        (benchmarks/embed.py measures both)."""
        import torch

        with torch.inference_mode():
            yield

    def cosine_to_float32(self, batch: dict[str, Any], embedded: dict[str, Any], num_rows: int) -> float:
        """The lowest cosine between the first rows that the mapper made of a batch and the same rows in float32."""
        import torch

        lowest = 1.0
        for input_name, encode, output_name in (
            ("image_tensor", self.model.encode_image, "image_embs"),
            ("text_tokens", self.model.encode_text, "text_embs"),
        ):
            with torch.inference_mode():
                exact = encode(batch[input_name][:num_rows].to(self.device)).float().cpu()
            rows = torch.from_numpy(embedded[output_name][:num_rows].astype(np.float32))
            lowest = min(lowest, float(torch.nn.functional.cosine_similarity(exact, rows, dim=-1).min()))
        return lowest

    def embed(
        self, pictures: list[Any], captions: list[str]
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
        """Image and text embeddings, each `(n, dim)` float16 of unit length, of PIL images and their captions."""
        import torch

        batch = {
            "image_tensor": torch.stack([self.preprocess(picture) for picture in pictures]),
            "text_tokens": self.tokenizer(captions),
            "image_filename": [""] * len(pictures),
            "text": captions,
            "metadata": ["{}"] * len(pictures),
        }
        embedded = self.mapper(batch)
        return embedded["image_embs"], embedded["text_embs"]

    def embed_captions(self, captions: list[str]) -> npt.NDArray[np.float32]:
        """Text embeddings, `(n, dim)` float32 of unit length."""
        return self.embed_words(captions)[0]

    def embed_words(self, captions: list[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Text embeddings `(n, dim)`, and text encodings `(n, 77, width)`: the text tower's last layer, word by word,
        zero after the end of the caption. Both are float32 and equal to those of dalle2-pytorch's adapters.

        Raises StageError if this CLIP's text tower has no layer that the encodings can be read from.
        """
        import torch

        outputs: list[torch.Tensor] = []
        hook = self._last_text_layer().register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        tokens = self.tokenizer(captions)
        try:
            with torch.inference_mode():
                embeddings = self.model.encode_text(tokens.to(self.device)).float().cpu()
        finally:
            hook.remove()
        # The end-of-text token has the highest number of OpenAI's vocabulary.
        ends = tokens.argmax(dim=-1, keepdim=True)
        is_after_end = torch.arange(tokens.shape[-1]) > ends
        encodings = outputs[0].float().cpu().masked_fill(is_after_end[..., None], 0.0)
        return torch.nn.functional.normalize(embeddings, dim=-1).numpy(), encodings.numpy()

    def _last_text_layer(self) -> torch.nn.Module:
        modules = dict(self.model.named_modules())
        for name in ("ln_final", "text.ln_final", "inner_model.text_model.final_layer_norm"):
            if name in modules:
                return cast("torch.nn.Module", modules[name])
        raise StageError(
            "this CLIP's text tower has no last layer norm that sp-data knows; set text_encodings to false"
        )


def load_clip(clip_model: str, expected_dim: int, precision: RequestedPrecision = "fp32") -> Clip:
    """Load a model through clip-retrieval; its mapper computes in `precision`.

    Raises StageError if it cannot be loaded, or if its embeddings are not `expected_dim` wide.
    """
    name = clip_retrieval_name(clip_model)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with quiet(), deferred(*UNUSED):
            with patient_threads():
                import torch
            from all_clip import load_clip as load

            from sp_data.dataset.embed.clip_weights import use_safe_loaders

            use_safe_loaders()
            mapper = module("mapper").ClipMapper(
                enable_image=True,
                enable_text=True,
                enable_metadata=True,
                use_mclip=False,
                clip_model=name,
                use_jit=False,
                mclip_model="",
            )
            _, preprocess, tokenizer = load(clip_model=name, use_jit=False, warmup_batch_size=1, clip_cache_path=None)
            tokens = tokenizer(["a"]).to(mapper.device)
            # all_clip caches models: this one may have been loaded without gradients before.
            with torch.inference_mode():
                dim = int(mapper.model_txt(tokens).shape[-1])
    except SpDataError:
        raise
    except Exception as error:
        # Three libraries load models, each with errors of its own; a broken file raises whatever it makes them raise.
        raise StageError(
            f"CLIP {clip_model!r} cannot be loaded ({reason_of(error)}); "
            "check embed.clip_model, and the network if its weights are downloaded"
        ) from error
    if dim != expected_dim:
        raise StageError(
            f"CLIP {clip_model!r} makes embeddings of {dim} numbers, and the recipe says embed.dim = {expected_dim}; "
            "change one of the two before anything is trained on them"
        )
    # The mapper has only two methods of the model.
    device, model = str(mapper.device), mapper.model_txt.__self__
    precision_used = choose(precision, device)
    if precision_used == "bf16":
        mapper.model_img = in_bf16(mapper.model_img, device)
        mapper.model_txt = in_bf16(mapper.model_txt, device)
    tokenize = cast("Callable[[list[str]], torch.Tensor]", tokenizer)
    return Clip(mapper, preprocess, tokenize, device, dim, precision_used, model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what clip-retrieval and its libraries print, and their warnings, from the terminal.

    Standard output is ours (--json), and none of those messages asks for action: errors are raised.
    """
    with contextlib.redirect_stdout(io.StringIO()), unwarned():
        yield


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Keep those warnings of clip-retrieval and its libraries from the terminal that ask for no action."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated")
        warnings.filterwarnings("ignore", message=r"WebDataset\(shardshuffle=")
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
        yield
