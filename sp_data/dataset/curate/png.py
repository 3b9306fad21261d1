"""What Pillow does not ask of a PNG: are its checksums right, and is there data for every row?

    signature, then chunks of: length (4 bytes), kind (IHDR, tEXt, IDAT, IEND, ...), data, checksum (4 bytes)

Pillow fills missing rows with black and passes over wrong checksums of pixels, and libpng, by which img2dataset reads,
refuses both. A wrong checksum of what is no pixel (a comment, a profile) is the other way round: Pillow refuses the
file. Such chunks are left out here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> numbers a pixel."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Interlaced: first column, first row, columns and rows from one pixel to the next, of each of seven passes."""
STEP_BYTES = 1 << 20


class DamagedPng(ValueError):
    """Its pixels cannot be trusted; says why."""


class CutPng(ValueError):
    """It ends before its pixels do; says where."""


@dataclass(frozen=True, slots=True)
class PngFile:
    data: bytes
    """The file, without the chunks that are broken and no pixels."""
    pixels: tuple[bytes, ...]
    """Data of the IDAT chunks: one zlib stream."""
    header: bytes
    sound: bool
    """Nothing is broken, and it has its end: every decoder reads it."""


def read_png(data: bytes) -> PngFile:
    """Walk the chunks; nothing is decompressed. Raises CutPng, DamagedPng."""
    parts, pixels, header, sound, ended = [SIGNATURE], [], b"", True, False
    place = len(SIGNATURE)
    while place + 12 <= len(data) and not ended:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        body = data[place + 8 : end - 4]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(body, zlib.crc32(kind)) == checksum:
            parts.append(data[place:end])
        elif kind[:1].islower():
            # A small first letter: the picture is the same without it.
            sound = False
        else:
            raise DamagedPng(f"its {kind.decode('latin-1')} chunk at byte {place:,} has a wrong checksum")
        if kind == b"IHDR":
            header = header or body
        elif kind == b"IDAT":
            pixels.append(body)
        ended = kind == b"IEND"
        place = end
    if len(header) != 13 or not pixels:
        raise CutPng(f"it ends after {len(data):,} bytes, before its pixels")
    return PngFile(b"".join(parts), tuple(pixels), header, sound and ended)


def check_pixels(png: PngFile) -> None:
    """Decompress the pixels, as far as the header says that there are any. Raises CutPng, DamagedPng."""
    wanted = _num_bytes(png.header)
    stream = zlib.decompressobj()
    found = 0
    try:
        for chunk in png.pixels:
            left = chunk
            while left and not stream.eof:
                # One byte more than is due shows an end that is due; a bomb goes no further.
                found += len(stream.decompress(left, min(STEP_BYTES, wanted - found + 1)))
                if found > wanted:
                    return
                left = stream.unconsumed_tail
    except zlib.error as error:
        raise DamagedPng(f"its pixels cannot be decompressed ({error})") from error
    if found < wanted:
        raise CutPng(f"it holds {found:,} of {wanted:,} bytes of pixels")


def _num_bytes(header: bytes) -> int:
    """Of all rows, each with the byte that names its filter. Raises DamagedPng."""
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
