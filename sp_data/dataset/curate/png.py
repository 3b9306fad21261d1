"""Checks of a PNG that Pillow does not make: are its checksums right, and is there data for every row?

    signature, then chunks of: length (4 bytes), kind (IHDR, tEXt, IDAT, IEND, ...), data, checksum (4 bytes)

Pillow fills missing rows with black and ignores wrong checksums of pixels; libpng, with which img2dataset reads,
refuses both. For other chunks (a comment, a profile) it is the other way round: Pillow refuses the file if a checksum
is wrong. Such chunks are left out here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> numbers per pixel."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The seven passes of an interlaced file: first column, first row, columns and rows from one pixel to the next."""
STEP_BYTES = 1 << 20


class DamagedPng(ValueError):
    """The pixels cannot be trusted; the message says why."""


class CutPng(ValueError):
    """The file ends before its pixels do; the message says where."""


@dataclass(frozen=True, slots=True)
class PngFile:
    data: bytes
    """The file, without broken chunks other than those of the pixels."""
    pixels: tuple[bytes, ...]
    """Data of the IDAT chunks: one zlib stream."""
    header: bytes
    sound: bool
    """Nothing is broken, and the end is there: every decoder reads it."""


def read_png(data: bytes) -> PngFile:
    """Walk the chunks; nothing is decompressed. Raises CutPng, DamagedPng."""
    parts, pixels, header, sound, at_end = [SIGNATURE], [], b"", True, False
    offset = len(SIGNATURE)
    while offset + 12 <= len(data) and not at_end:
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            break
        body = data[offset + 8 : end - 4]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(body, zlib.crc32(kind)) == checksum:
            parts.append(data[offset:end])
        elif kind[:1].islower():
            # A lower-case first letter: the picture is the same without this chunk.
            sound = False
        else:
            raise DamagedPng(f"its {kind.decode('latin-1')} chunk at byte {offset:,} has a wrong checksum")
        if kind == b"IHDR":
            header = header or body
        elif kind == b"IDAT":
            pixels.append(body)
        at_end = kind == b"IEND"
        offset = end
    if len(header) != 13 or not pixels:
        raise CutPng(f"it ends after {len(data):,} bytes, before its pixels")
    return PngFile(b"".join(parts), tuple(pixels), header, sound and at_end)


def check_pixels(png: PngFile) -> None:
    """Decompress as many bytes of pixels as the header promises. Raises CutPng, DamagedPng."""
    num_expected = _num_bytes(png.header)
    stream = zlib.decompressobj()
    num_found = 0
    try:
        for chunk in png.pixels:
            remaining = chunk
            while remaining and not stream.eof:
                # One byte more than expected, so that the end of the stream is read too; a bomb gets no further.
                num_found += len(stream.decompress(remaining, min(STEP_BYTES, num_expected - num_found + 1)))
                if num_found > num_expected:
                    return
                remaining = stream.unconsumed_tail
    except zlib.error as error:
        raise DamagedPng(f"its pixels cannot be decompressed ({error})") from error
    if num_found < num_expected:
        raise CutPng(f"it holds {num_found:,} of {num_expected:,} bytes of pixels")


def _num_bytes(header: bytes) -> int:
    """Bytes of all rows, each with the byte that names its filter. Raises DamagedPng."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in CHANNELS:
        raise DamagedPng(f"its header says colour type {colour}, which there is not")
    bits = depth * CHANNELS[colour]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
