"""Open one picture of a stranger's, within limits of pixels and scans. Whatever a decoder raises is its reason.

Only the formats of wikis are opened: of Pillow's forty some are programs (EPS), and most decoders are seldom tried.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from sp_data.dataset.curate import png as png_chunks
from sp_data.errors import reason_of

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""Of the forty formats that Pillow knows. The others are not used on wikis, or dangerous (EPS is a program)."""
# Our own limit is checked before anything is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
MAX_SCANS = 200
"""A JPEG that shows itself bit by bit has ten scans or so; each is one pass over the whole picture, and takes five
bytes of a file that means no good."""
MAX_PIXELS = 50_000_000
"""Of a picture in a tar, which is of the size that a model reads."""
SIGNATURES = (png_chunks.SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of files of these formats, whole or not."""
MARKER = re.compile(rb"\xff[\x01-\xfe]")
"""A JPEG's marker; in the data of a scan, 0xff stands for itself where 0 follows."""
START_OF_SCAN, END_OF_PICTURE = 0xDA, 0xD9
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
HEAD_BYTES = 4096
"""The part of a file that is searched for signs of HTML and SVG."""


class Refused(Exception):
    """A picture that is not kept; `reason` is one of REASONS, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        # It may quote what the file says.
        detail = "".join(char if char.isprintable() else "?" for char in detail)
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def check_header(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of a picture, whose pixels are not decoded. Raises Refused."""
    with opened_picture(data, max_pixels) as opened:
        size: tuple[int, int] = opened.size
        return size


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of a picture in a shard, as RGB: it is in normal form already. Raises Refused."""
    with opened_picture(data, max_pixels) as opened:
        if opened.format in ("JPEG", "MPO"):
            check_scans(data)
        with decoder_errors():
            opened.load()
            return opened if opened.mode == "RGB" else opened.convert("RGB")


@contextlib.contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn whatever a decoder raises into Refused: they are written by many people, in many languages."""
    try:
        yield
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", reason_of(error)) from error
    except Exception as error:
        # Decoders raise whatever a damaged file makes them raise: it is the picture's reason.
        raise Refused("damaged", reason_of(error)) from error


def opened_picture(data: bytes, max_pixels: int) -> Image.Image:
    """A picture whose header was read, of at most so many pixels. Raises Refused."""
    try:
        opened = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unrecognised(data) from error
    except Image.DecompressionBombError as error:
        raise Refused("too-many-pixels", reason_of(error)) from error
    except Exception as error:
        # Decoders raise whatever a damaged file makes them raise: it is the picture's reason.
        if data.startswith(png_chunks.SIGNATURE) and "too large" in str(error):
            raise Refused("bomb", "a compressed text or profile in it holds more than a megabyte") from error
        raise Refused("damaged", reason_of(error)) from error
    try:
        _check_size(opened, max_pixels)
    except Refused:
        opened.close()
        raise
    return opened


def check_scans(data: bytes) -> None:
    """Raises Refused for a JPEG of so many scans that decoding would take minutes."""
    num_scans, offset = 0, 2
    while num_scans <= MAX_SCANS and (match := MARKER.search(data, offset)) is not None:
        offset = match.end()
        marker = data[offset - 1]
        if marker == END_OF_PICTURE:
            return
        if marker == START_OF_SCAN:
            num_scans += 1
        if marker not in WITHOUT_LENGTH and offset + 2 <= len(data):
            offset += int.from_bytes(data[offset : offset + 2], "big")
    if num_scans > MAX_SCANS:
        raise Refused("bomb", f"a JPEG of more than {MAX_SCANS} scans")


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


def _check_size(image: Image.Image, max_pixels: int) -> None:
    """Check the size that the header says, before decoding."""
    width, height = image.size
    if width * height > max_pixels:
        raise Refused("too-many-pixels", f"{width} x {height}, at most {max_pixels:,} pixels")
