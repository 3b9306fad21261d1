"""Read one picture: check its limits, bring it into normal form (normal_form.py), and hash it.

img2dataset silently gets many files wrong (16-bit comes out white, EXIF orientation is ignored, a bomb is decoded),
so a picture that is not in normal form gets a normalised copy before img2dataset sees it.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagehash
import numpy as np
from PIL import GifImagePlugin, Image, UnidentifiedImageError

from sp_data.dataset.curate import png as png_chunks
from sp_data.dataset.curate.normal_form import UnknownColours, is_normal, normal_form, stored_as
from sp_data.recipe import Curate

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""Of the forty formats that Pillow knows. The others are not used on wikis, or dangerous (EPS is a program)."""
EVERY_DECODER = ("PNG", "JPEG")
"""Formats that img2dataset's decoder reads as Pillow does."""
# Our own limit is checked before anything is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
HASH_SIDE = 16
"""The perceptual hash has HASH_SIDE**2 = 256 bits."""
THUMB_SIDE = 8
"""Side of the colour thumbnail that tells a red coat from a blue one, which the (grey) hash cannot."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
"""What Pillow's decoders raise on a file that is broken or cut."""
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
SIGNATURES = (png_chunks.SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of files of these formats, whole or not."""
HEAD_BYTES = 4096
"""The part of a file that is searched for signs of HTML and SVG."""


class Refused(Exception):
    """A picture that is not kept; `reason` is one of REASONS, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


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
    try:
        opened = Image.open(BytesIO(png.data if png else data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unrecognised(data) from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", str(error)) from error
    except UNREADABLE as error:
        if png and "too large" in str(error):
            raise Refused("bomb", "a compressed text or profile in it holds more than a megabyte") from error
        raise Refused("damaged", str(error) or type(error).__name__) from error
    with opened:
        _check_size(opened, max_pixels)
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
    except UNREADABLE as error:
        raise Refused("cut-off", str(error) or type(error).__name__) from error
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


def _unrecognised(data: bytes) -> Refused:
    """The refusal of a file that no decoder recognises."""
    head = data[:HEAD_BYTES].lower()
    if b"<html" in head or b"<!doctype html" in head:
        return Refused("not-an-image", "a web page")
    if b"<svg" in head:
        return Refused("vector", "SVG: drawn by whoever shows it, in no size of its own; scrape a PNG of it instead")
    if not data:
        return Refused("not-an-image", "an empty file")
    if data.startswith(SIGNATURES):
        return Refused("damaged", "it begins like a picture, and no decoder knows how to go on")
    return Refused("not-an-image", f"none of {', '.join(FORMATS)}")


def phash(image: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash).tobytes()


def thumb(image: Image.Image) -> bytes:
    return image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()


def pixels(image: Image.Image) -> bytes:
    """Digest of the size and every pixel."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, salt=struct.pack(">II", *image.size)).digest()


def _check_size(image: Image.Image, max_pixels: int) -> None:
    """Check the size that the header says, before decoding."""
    width, height = image.size
    if width * height > max_pixels:
        raise Refused("too-many-pixels", f"{width} x {height}, at most {max_pixels:,} pixels")


def _check_shape(image: Image.Image, limits: Curate) -> None:
    width, height = image.size
    if min(width, height) < limits.min_side_px:
        raise Refused("too-small", f"{width} x {height}, at least {limits.min_side_px} px a side")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Refused("too-long", f"{width} x {height}, at most {limits.max_aspect:g} : 1")
