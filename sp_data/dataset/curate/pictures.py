"""Read one picture: check its limits, bring it into normal form (normal_form.py), and hash it.

img2dataset silently gets many files wrong (16-bit comes out white, EXIF orientation is ignored, a bomb is decoded),
so a picture that is not in normal form gets a normalised copy before img2dataset sees it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import GifImagePlugin, Image

from sp_data.dataset.curate import png as png_chunks
from sp_data.dataset.curate.decoding import Refused, check_scans, opened_picture
from sp_data.dataset.curate.normal_form import UnknownColours, is_normal, normal_form, stored_as
from sp_data.errors import reason_of
from sp_data.recipe import Curate

EVERY_DECODER = ("PNG", "JPEG")
"""Formats that img2dataset's decoder reads as Pillow does."""
HASH_SIDE = 16
"""The perceptual hash has HASH_SIDE**2 = 256 bits."""
THUMB_SIDE = 8
"""Side of the colour thumbnail that tells a red coat from a blue one, which the (grey) hash cannot."""
REASONS = frozenset(
    {
        "not-an-image",
        "vector",
        "cut-off",
        "damaged",
        "bomb",
        "unknown-colours",
        "too-many-pixels",
        "too-small",
        "too-long",
    }
)
"""Why a picture is refused by itself, without a look at the others."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in normal form, and the hashes by which pictures are compared."""

    image: Image.Image
    """RGB."""
    file_is_normal: bool
    """The file itself is in normal form: no copy is needed."""
    phash: bytes
    """Perceptual hash, 32 bytes = 256 bits (imagehash.phash, after Zauner 2010)."""
    thumb: bytes
    """8 x 8 RGB, row by row: 192 bytes."""
    pixels: bytes
    """Digest of the pixels, 16 bytes: equal for equal pictures, whatever their files."""


def read_picture(path: Path, limits: Curate) -> Picture:
    """Read, check and normalise one file. The same bytes give the same picture, or the same refusal.

    Raises Refused with one of REASONS; FileNotFoundError, which is not the picture's fault.
    """
    image, file_is_normal = decode(path.read_bytes(), limits.max_pixels)
    _check_shape(image, limits)
    return Picture(image, file_is_normal, phash(image), thumb(image), pixels(image))


def decode(data: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    """The first frame of a file in normal form, and whether the file itself is in normal form. Raises Refused."""
    png = _png(data)
    with opened_picture(png.data if png else data, max_pixels) as opened:
        if opened.format in ("JPEG", "MPO"):
            check_scans(data)
        return _decode(opened, png)


def _png(data: bytes) -> png_chunks.PngFile | None:
    if not data.startswith(png_chunks.SIGNATURE):
        return None
    try:
        return png_chunks.read_png(data)
    except png_chunks.CutPng as error:
        raise Refused("cut-off", str(error)) from error
    except png_chunks.DamagedPng as error:
        raise Refused("damaged", str(error)) from error


def _decode(opened: Image.Image, png: png_chunks.PngFile | None) -> tuple[Image.Image, bool]:
    """The first frame in normal form, and whether the file itself is in normal form."""
    try:
        if png:
            png_chunks.check_pixels(png)
        animated = bool(getattr(opened, "is_animated", False))
        opened.seek(0)
        stored, frame_box = stored_as(opened), _frame_box(opened)
        opened.load()
        is_simple = opened.format in EVERY_DECODER and not animated and (png is None or png.sound)
        file_is_normal = is_simple and is_normal(opened, stored)
        image = normal_form(opened, stored)
    except png_chunks.DamagedPng as error:
        raise Refused("damaged", str(error)) from error
    except UnknownColours as error:
        raise Refused("unknown-colours", str(error)) from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", str(error)) from error
    except Exception as error:
        # Decoders raise whatever a damaged file makes them raise: it is the picture's reason.
        raise Refused("cut-off", reason_of(error)) from error
    if frame_box is not None:
        # Pillow shows the first colour of the palette where the first frame draws nothing.
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image.crop(frame_box), frame_box[:2])
        image = canvas
    return image, file_is_normal


def _frame_box(opened: Image.Image) -> tuple[int, int, int, int] | None:
    """The part of a GIF's canvas that its first frame covers (left, top, right, bottom); None if it covers all."""
    if not isinstance(opened, GifImagePlugin.GifImageFile) or not opened.tile:
        return None
    box = opened.tile[0].extents
    return None if box in (None, (0, 0, *opened.size)) else box


def phash(image: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash).tobytes()


def thumb(image: Image.Image) -> bytes:
    return image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()


def pixels(image: Image.Image) -> bytes:
    """Digest of the size and every pixel."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, salt=struct.pack(">II", *image.size)).digest()


def _check_shape(image: Image.Image, limits: Curate) -> None:
    width, height = image.size
    if min(width, height) < limits.min_side_px:
        raise Refused("too-small", f"{width} x {height}, at least {limits.min_side_px} px a side")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Refused("too-long", f"{width} x {height}, at most {limits.max_aspect:g} : 1")
