"""Files as real wikis have them: truncated, rotated, too deep, mislabelled, copied, animated, or not pictures at all.

Every function takes a drawn picture and returns a file's bytes; equal pictures give equal bytes.
"""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

ORIENTATION_TAG = 0x0112
SVG = b"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="120" height="60" viewBox="0 0 120 60">
<rect width="120" height="60" fill="#eceae2"/><circle cx="34" cy="32" r="20" fill="#f8dcc0"/>
<path d="M14 28a20 20 0 0 1 40 0z" fill="#2449c4"/><text x="62" y="38" font-size="18">Kids</text></svg>
"""


def png(picture: Image.Image) -> bytes:
    """Compressed at level 1: these flat colours compress as well as at level 9, in a fifth of the time."""
    return _encoded(picture, "PNG", compress_level=1)


def truncated_png(picture: Image.Image) -> bytes:
    """A valid header that states the full size, and the first half of the bytes."""
    whole = png(picture)
    return whole[: len(whole) // 2]


def animated_gif(pictures: Sequence[Image.Image]) -> bytes:
    """One frame a picture, 200 ms each, looped for ever."""
    frames = [picture.quantize(64) for picture in pictures]
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)


def rotated_jpeg(picture: Image.Image) -> bytes:
    """Stored on its side; EXIF orientation 6 tells viewers to turn it a quarter clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    return _encoded(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif.tobytes())


def jpeg(picture: Image.Image) -> bytes:
    return _encoded(picture, "JPEG", quality=92)


def deep_png(picture: Image.Image) -> bytes:
    """16 bits a channel, RGB. Encoded here because Pillow can read this form but not write it."""
    rows = np.asarray(picture.convert("RGB")).astype(">u2") * np.array(257, ">u2")
    height, width, _ = rows.shape
    # Every row starts with the number of its filter: 0 is none.
    scanlines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def transparent_png(picture: Image.Image) -> bytes:
    """RGBA, cut round: the corners are transparent."""
    mask = Image.new("L", (picture.width * 2, picture.height * 2))
    ImageDraw.Draw(mask).ellipse((8, 8, mask.width - 8, mask.height - 8), fill=255)
    cut = picture.convert("RGBA")
    cut.putalpha(mask.reduce(2))
    return png(cut)


def pixel_png() -> bytes:
    """One pixel, as used for tracking and spacing."""
    return png(Image.new("RGB", (1, 1), (250, 246, 236)))


def ogg() -> bytes:
    """The first page of a Vorbis stream: enough to be recognised as sound."""
    return b"OggS\0\x02" + bytes(8) + b"\1\0\0\0\0\0\0\0\0\0\0\0\1\x1e\1vorbis" + bytes(23)


def _encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
