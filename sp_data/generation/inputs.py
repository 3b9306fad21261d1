"""Pictures and masks that a person gives: read within limits, brought into the size of the models.

mask: white = repaint, black = keep, grey = a soft edge; of any mode, and of the picture's proportions
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from sp_data.dataset.curate.decoding import FORMATS, Refused
from sp_data.dataset.curate.normal_form import UPRIGHT_BY, orientation
from sp_data.dataset.curate.pictures import decode
from sp_data.errors import UsageError
from sp_data.training.decoder import resized

MAX_BYTES = 50_000_000
MAX_PIXELS = 40_000_000
FAINT = 16 / 255
"""Darker counts as black: the black of a JPEG is not quite 0."""
PROPORTIONS = 0.02
"""By how much the proportions of a mask may differ from the picture's."""
CURES = {
    "not-an-image": "give a PNG, JPEG, WebP, GIF, AVIF, BMP or TIFF",
    "vector": "give a PNG of it",
    "too-many-pixels": "make it smaller first",
}


@dataclass(frozen=True, slots=True, eq=False)
class InputPicture:
    """A person's picture: upright 8-bit RGB, over white where it was transparent."""

    image: Image.Image
    name: str
    sha256: str
    """Of the file, or of the pixels where there is none."""

    @classmethod
    def of_image(cls, image: Image.Image, name: str = "picture") -> InputPicture:
        """A picture that is in memory."""
        rgb = _over(image, "white")
        return cls(rgb, name, hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest())

    @property
    def origin(self) -> dict[str, str]:
        return {"name": self.name, "sha256": self.sha256}

    def square(self, size_px: int) -> torch.Tensor:
        """`(3, size, size)` float32 in 0..1: its largest square from the middle, antialiased."""
        side = min(self.image.size)
        left, top = (self.image.width - side) // 2, (self.image.height - side) // 2
        return to_tensor(self.image.crop((left, top, left + side, top + side)), size_px)


@dataclass(frozen=True, slots=True, eq=False)
class Repainting:
    """A picture with the part of it that is repainted.

    The models draw squares: `box` is the square of the picture that they see, at the mask, as large as fits. Where the
    mask is longer than the picture's shorter side, the box reaches over the edge, and the edge's pixels are repeated.
    """

    picture: InputPicture
    mask: npt.NDArray[np.float32]
    """`(height, width)` of the picture, 0 = keep, 1 = repaint."""
    box: tuple[int, int, int, int]
    mask_sha256: str

    @property
    def origin(self) -> dict[str, str]:
        return {"mask_sha256": self.mask_sha256}

    def seen(self, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What a unet of this size sees: the picture `(3, size, size)` in 0..1, and what it keeps `(size, size)` bool.
        A pixel of which any part is repainted is not kept."""
        picture = _tensor(self.picture.image)
        mask = torch.from_numpy(self.mask)[None, None]
        padding = self._padding()
        picture, mask = F.pad(picture, padding, mode="replicate"), F.pad(mask, padding, mode="replicate")
        left, top = self.box[0] + padding[0], self.box[1] + padding[2]
        side = self.box[2] - self.box[0]
        picture = picture[..., top : top + side, left : left + side]
        mask = mask[..., top : top + side, left : left + side]
        repainted = F.adaptive_max_pool2d(mask, size_px) if side > size_px else F.interpolate(mask, size_px)
        return resized(picture, size_px)[0], repainted[0, 0] <= 0

    def finished(self, drawn: Image.Image) -> Image.Image:
        """The picture in its own size with the repainted part of what was drawn; what the mask keeps is untouched."""
        left, top, right, bottom = self.box
        image = self.picture.image
        inside = (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom))
        enlarged = drawn.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        seen = enlarged.crop((inside[0] - left, inside[1] - top, inside[2] - left, inside[3] - top))
        before, after = np.asarray(image.crop(inside)), np.asarray(seen)
        share = self.mask[inside[1] : inside[3], inside[0] : inside[2], None]
        blended = (before * (1 - share) + after * share).round().astype(np.uint8)
        finished = image.copy()
        finished.paste(Image.fromarray(np.where(share > 0, blended, before)), inside[:2])
        return finished

    def _padding(self) -> tuple[int, int, int, int]:
        left, top, right, bottom = self.box
        width, height = self.picture.image.size
        return max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height)


def read_picture(path: Path) -> InputPicture:
    """Raises UsageError for what is no picture, or too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} has {path.stat().st_size / 1e6:,.0f} MB, at most {MAX_BYTES / 1e6:,.0f} are read")
        with path.open("rb") as stream:
            # Of a device there may be no end.
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no picture {path}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder; give the pictures in it") from error
    return picture_of(data, path.name, str(path))


def picture_of(data: bytes, name: str, shown: str = "") -> InputPicture:
    """A picture in the bytes of a file. Raises UsageError for what is no picture, or too large."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{shown or name} has {len(data) / 1e6:,.0f} MB, at most {MAX_BYTES / 1e6:,.0f} are read")
    try:
        image, _ = decode(data, MAX_PIXELS)
    except Refused as error:
        cure = CURES.get(error.reason, "give another file")
        raise UsageError(
            f"{shown or name} cannot be read as a picture ({error.reason}: {error.detail}); {cure}"
        ) from error
    # The name of a file need not be UTF-8; a picture that records it is.
    return InputPicture(image, name.encode(errors="replace").decode(), hashlib.sha256(data).hexdigest())


def repainting(picture: InputPicture, mask: Image.Image, name: str = "the mask") -> Repainting:
    """A picture with its mask, which is brought to the picture's size.

    Raises UsageError if its proportions are others, if nothing of it is white, or if the white part is too long.
    """
    grey = _over(mask, "black").convert("L")
    width, height = picture.image.size
    if abs(grey.width * height / (grey.height * width) - 1) > PROPORTIONS:
        raise UsageError(
            f"{name} is {grey.width} x {grey.height}, {picture.name} {width} x {height}: expected equal proportions"
        )
    if grey.size != picture.image.size:
        grey = grey.resize(picture.image.size, Image.Resampling.BILINEAR)
    values = np.asarray(grey).astype(np.float32) / 255
    values[values < FAINT] = 0
    rows, columns = np.flatnonzero(values.any(axis=1)), np.flatnonzero(values.any(axis=0))
    if not len(rows):
        raise UsageError(f"{name} is black all over: paint white what is to be repainted")
    box = _box((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), width, height)
    side = box[2] - box[0]
    if side**2 > MAX_PIXELS:
        raise UsageError(
            f"the white part of {name} is {side:,} px long: the models draw squares, and that square has more than "
            f"{MAX_PIXELS:,} pixels; make the picture smaller first"
        )
    return Repainting(picture, values, box, hashlib.sha256(repr(grey.size).encode() + grey.tobytes()).hexdigest())


def read_mask(path: Path) -> Image.Image:
    """A mask, transparent parts and all. Raises UsageError as `read_picture`."""
    # Checked as pictures are; the normal form itself would lay it over white, which is 'repaint'.
    read_picture(path)
    with Image.open(path, formats=FORMATS) as opened:
        opened.load()
        transposition = UPRIGHT_BY.get(orientation(opened))
        return opened.copy() if transposition is None else opened.transpose(transposition)


def to_tensor(image: Image.Image, size_px: int) -> torch.Tensor:
    """A square RGB picture as `(3, size, size)` float32 in 0..1, resized as in training."""
    return resized(_tensor(image), size_px)[0]


def _tensor(image: Image.Image) -> torch.Tensor:
    """`(1, 3, height, width)` float32 in 0..1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()[None] / 255


def _over(image: Image.Image, background: str) -> Image.Image:
    """RGB of any mode, over a colour where it is transparent."""
    if image.mode.startswith(("I", "F")):
        # 16 bits: the upper byte.
        values = np.asarray(image).astype(np.float64)
        largest = 65535 if values.max() > 255 else 255
        image = Image.fromarray((values * (255 / largest)).clip(0, 255).astype(np.uint8))
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
    return image.convert("RGB")


def _box(painted: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The square that the models see: as large as the picture's shorter side, or the painted part, around its middle
    and within the picture where that is possible."""
    side = max(min(width, height), painted[2] - painted[0], painted[3] - painted[1])

    def start(low: int, high: int, length: int) -> int:
        if side >= length:
            return (length - side) // 2
        middle = (low + high - side) // 2
        return min(max(middle, 0), length - side)

    left, top = start(painted[0], painted[2], width), start(painted[1], painted[3], height)
    return left, top, left + side, top + side
