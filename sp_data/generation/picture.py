"""A generated picture and its origin: how it was made, which its PNG records.

    {"kind": "dream", "prompt": "a kid in a red coat", "seed": 7, "sampler": "dpm++", "steps": [12, 12], …,
     "clip": "tiny-3f2a1b", "prior": {"run": "prior-1f0c55ab", "step": 800, "weights": "9d…", "dataset": "3f2a…"},
     "decoder": [{…}, {…}]}

The origin decides the pixels: equal origins on one machine give equal pictures.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from sp_data.canonical import parse_json
from sp_data.dataset.curate.decoding import MAX_PIXELS, Refused, decoder_errors
from sp_data.errors import CorruptFile

CHUNK = "sp-data"
"""Name of the PNG's text chunk that holds the origin."""
MAX_ORIGIN = 1_000_000
"""Characters of a chunk that are read."""
SLUG_LENGTH, SLUG_BYTES = 80, 120
"""The words in a file's name: file systems take 255 bytes, and seed, digest and a temporary ending come on top."""


@dataclass(frozen=True, slots=True)
class GeneratedPicture:
    picture: Image.Image
    origin: dict[str, Any]
    """Prompt, seed, options, weights with digests, datasets."""
    scores: dict[str, float] = field(default_factory=dict)
    """`clip`: cosine between the picture and its prompt; `clip_input`: between the picture and the one it was made
    from."""
    embedding: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """CLIP's embedding of the picture, `(dim,)` of unit length."""

    @property
    def prompt(self) -> str:
        return str(self.origin["prompt"])

    @property
    def seed(self) -> int:
        return int(self.origin["seed"])

    def png(self) -> bytes:
        """The PNG; equal pictures of equal origin give equal bytes."""
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(self.origin, sort_keys=True, ensure_ascii=False))
        out = io.BytesIO()
        self.picture.save(out, "PNG", pnginfo=info)
        return out.getvalue()

    def sidecar(self) -> bytes:
        """Origin and scores as a JSON file, for programs that read no PNG chunks."""
        document = {**self.origin, "scores": {name: round(value, 4) for name, value in self.scores.items()}}
        return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"

    @property
    def file_name(self) -> str:
        """Readable by its prompt, or by the name of the picture it was made from; different for each origin."""
        digest = hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode()).hexdigest()[:8]
        return f"{slug(self.prompt or self._input_name())}-seed-{self.seed}-{digest}.png"

    def _input_name(self) -> str:
        inputs = self.origin.get("inputs") or [{"name": ""}]
        return f"{self.origin['kind']}-{inputs[0]['name'].rsplit('/', 1)[-1].rsplit('.', 1)[0]}"


def slug(text: str) -> str:
    """Words of a text as a part of a file's name: at most SLUG_LENGTH characters and SLUG_BYTES bytes."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:SLUG_LENGTH]
    return words.encode()[:SLUG_BYTES].decode(errors="ignore").strip("-") or "picture"


def read_origin(data: bytes, name: str) -> dict[str, Any]:
    """The origin that a PNG of sp-data records. Raises CorruptFile if it records none, or the file is no picture."""
    try:
        with decoder_errors(), Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Refused("too-many-pixels", f"{opened.width} x {opened.height}")
            # Text chunks may stand behind the pixels.
            opened.load()
            text = getattr(opened, "text", {}).get(CHUNK)
    except Refused as error:
        raise CorruptFile(f"{name} is not a PNG that can be read ({error})") from error
    if text is None:
        raise CorruptFile(f"{name} does not say how it was made: expected a PNG that sp-data has drawn")
    try:
        origin = parse_json(text[:MAX_ORIGIN])
    except ValueError as error:
        raise CorruptFile(f"the {CHUNK!r} chunk of {name} is not JSON ({error})") from error
    if not isinstance(origin, dict) or not isinstance(origin.get("prompt"), str) or "decoder" not in origin:
        raise CorruptFile(f"the {CHUNK!r} chunk of {name} does not describe a picture: it has no prompt and decoder")
    return origin
