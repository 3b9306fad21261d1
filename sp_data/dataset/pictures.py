"""The normal form of a picture: 8-bit RGB over white, upright, first frame, within limits.

img2dataset gets these cases wrong in silence (16-bit comes out white, EXIF orientation is ignored, a bomb is decoded),
so a picture that is not in normal form gets a normalised copy before img2dataset sees it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from sp_data.recipe import Curate

HASH_SIDE = 16
"""The perceptual hash has HASH_SIDE**2 = 256 bits."""
THUMB_SIDE = 8
"""Side of the colour thumbnail that tells a red coat from a blue one, which the (grey) hash cannot."""
EXIF_ORIENTATION = 0x0112
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow's decoders raise on bytes that are no whole picture."""


class Refused(Exception):
    """A picture that is not kept; `reason` is one of few words to count by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in normal form and what tells it from others."""

    image: Image.Image
    """RGB."""
    as_it_was: bool
    """The file holds the normal form already: no copy is needed."""
    phash: bytes
    """Perceptual hash, 32 bytes = 256 bits (imagehash.phash, after Zauner 2010)."""
    thumb: bytes
    """8 x 8 RGB, row by row: 192 bytes."""


def read_picture(path: Path, limits: Curate) -> Picture:
    """Read, check and normalise one file.

    Raises Refused with reason 'not-an-image', 'cut-off', 'too-many-pixels', 'too-small' or 'too-long'.
    """
    try:
        with Image.open(path) as opened:
            _check_size(opened, limits)
            opened.seek(0)
            plain = _is_plain(opened)
            opened.load()
            image, was_rgb = normal_form(opened)
    except FileNotFoundError:
        # The picture is not at fault.
        raise
    except UnidentifiedImageError as error:
        raise Refused("not-an-image", "no decoder knows these bytes") from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", str(error)) from error
    except UNREADABLE as error:
        raise Refused("cut-off", str(error) or type(error).__name__) from error
    _check_shape(image, limits)
    return Picture(image, plain and was_rgb, phash(image), thumb(image))


def _is_plain(image: Image.Image) -> bool:
    """One frame of 8 bits in a format that every decoder reads alike. Asked before loading, which forgets the tiles."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    sixteen_bits = any("16" in str(tile[3]) for tile in tiles)
    return image.format in ("PNG", "JPEG") and not sixteen_bits and not getattr(image, "is_animated", False)


def normal_form(image: Image.Image) -> tuple[Image.Image, bool]:
    """The loaded picture as upright 8-bit RGB over white, and whether it was that already."""
    turned = image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
    if image.mode == "RGB" and not turned and "transparency" not in image.info:
        return image.copy(), True
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # 16 bits in one channel; Pillow's own convert("L") clips at 255 instead of scaling.
        grey = np.clip(np.asarray(upright, dtype=np.int64) // 257, 0, 255).astype(np.uint8)
        return Image.fromarray(grey, "L").convert("RGB"), False
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        over = upright.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB"), False
    return upright.convert("RGB"), False


def phash(image: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash).tobytes()


def thumb(image: Image.Image) -> bytes:
    return image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()


def _check_size(image: Image.Image, limits: Curate) -> None:
    """Before decoding: what the header says decides."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise Refused("too-many-pixels", f"{width} x {height}, at most {limits.max_pixels:,} pixels")


def _check_shape(image: Image.Image, limits: Curate) -> None:
    width, height = image.size
    if min(width, height) < limits.min_side_px:
        raise Refused("too-small", f"{width} x {height}, at least {limits.min_side_px} px a side")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Refused("too-long", f"{width} x {height}, at most {limits.max_aspect:g} : 1")
