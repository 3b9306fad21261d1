"""Read one picture: within limits, in normal form (normal_form.py), and with what tells it from others.

img2dataset gets many files wrong in silence (16-bit comes out white, EXIF orientation is ignored, a bomb is decoded),
so a picture that is not in normal form gets a normalised copy before img2dataset sees it.
"""

from __future__ import annotations

import hashlib
import struct
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
"""Of the forty that Pillow knows. Others are no pictures of a wiki, or dangerous (EPS is a program to be run)."""
EVERY_DECODER = ("PNG", "JPEG")
"""Formats that img2dataset's decoder reads as Pillow does."""
HASH_SIDE = 16
"""The perceptual hash has HASH_SIDE**2 = 256 bits."""
THUMB_SIDE = 8
"""Side of the colour thumbnail that tells a red coat from a blue one, which the (grey) hash cannot."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
"""What Pillow's decoders raise on bytes that are no whole picture."""
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
"""Why a picture is refused by itself, whatever others there are."""
BEGINNINGS = (png_chunks.SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""Of files that mean to be of one of the formats."""
HEAD_BYTES = 4096
"""Where a text is looked at to see what it is."""


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
    pixels: bytes
    """Equal for equal pictures, whatever files they came in: 16 bytes."""


def read_picture(path: Path, limits: Curate) -> Picture:
    """Read, check and normalise one file. The same bytes give the same picture, or are refused in the same words.

    Raises Refused with one of REASONS; FileNotFoundError, which is no fault of the picture.
    """
    data = path.read_bytes()
    png = _png(data)
    try:
        opened = Image.open(BytesIO(png.data if png else data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _no_picture(data) from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", str(error)) from error
    except UNREADABLE as error:
        if png and "too large" in str(error):
            raise Refused("bomb", "a compressed text or profile in it holds more than a megabyte") from error
        raise Refused("damaged", str(error) or type(error).__name__) from error
    with opened:
        _check_size(opened, limits)
        image, as_it_was = _decoded(opened, png)
    _check_shape(image, limits)
    return Picture(image, as_it_was, phash(image), thumb(image), pixels(image))


def _png(data: bytes) -> png_chunks.PngFile | None:
    if not data.startswith(png_chunks.SIGNATURE):
        return None
    try:
        return png_chunks.read_png(data)
    except png_chunks.CutPng as error:
        raise Refused("cut-off", str(error)) from error
    except png_chunks.DamagedPng as error:
        raise Refused("damaged", str(error)) from error


def _decoded(opened: Image.Image, png: png_chunks.PngFile | None) -> tuple[Image.Image, bool]:
    """The first frame in normal form, and whether the file holds that already."""
    try:
        if png:
            png_chunks.check_pixels(png)
        moving = bool(getattr(opened, "is_animated", False))
        opened.seek(0)
        stored, drawn = stored_as(opened), _drawn(opened)
        opened.load()
        plain = opened.format in EVERY_DECODER and not moving and (png is None or png.sound)
        as_it_was = plain and is_normal(opened, stored)
        image = normal_form(opened, stored)
    except png_chunks.DamagedPng as error:
        raise Refused("damaged", str(error)) from error
    except UnknownColours as error:
        raise Refused("unknown-colours", str(error)) from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", str(error)) from error
    except UNREADABLE as error:
        raise Refused("cut-off", str(error) or type(error).__name__) from error
    if drawn is not None:
        # Pillow shows the first colour of the palette where the first frame draws nothing.
        whole = Image.new("RGB", image.size, "white")
        whole.paste(image.crop(drawn), drawn[:2])
        image = whole
    return image, as_it_was


def _drawn(opened: Image.Image) -> tuple[int, int, int, int] | None:
    """The part of a GIF's canvas that its first frame covers (left, top, right, bottom); None for all of it."""
    if not isinstance(opened, GifImagePlugin.GifImageFile) or not opened.tile:
        return None
    box = opened.tile[0].extents
    return None if box in (None, (0, 0, *opened.size)) else box


def _no_picture(data: bytes) -> Refused:
    """Why no decoder takes these bytes."""
    head = data[:HEAD_BYTES].lower()
    if b"<html" in head or b"<!doctype html" in head:
        return Refused("not-an-image", "a web page")
    if b"<svg" in head:
        return Refused("vector", "SVG: drawn by whoever shows it, in no size of its own; scrape a PNG of it instead")
    if not data:
        return Refused("not-an-image", "an empty file")
    if data.startswith(BEGINNINGS):
        return Refused("damaged", "it begins like a picture, and no decoder knows how to go on")
    return Refused("not-an-image", f"none of {', '.join(FORMATS)}")


def phash(image: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash).tobytes()


def thumb(image: Image.Image) -> bytes:
    return image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()


def pixels(image: Image.Image) -> bytes:
    """Digest of the size and every pixel."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, salt=struct.pack(">II", *image.size)).digest()


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
