"""Pictures that mean no good: whatever a decoder does with them is their reason to be refused, within limits."""

from __future__ import annotations

import io
import struct
import time
import zlib
from types import SimpleNamespace

import pytest
from fuzzing import few_and_many, fuzz, mutated
from PIL import Image, PngImagePlugin

from sp_data.dataset.curate.decoding import MAX_SCANS, Refused, check_header, decode_rgb
from sp_data.dataset.curate.pictures import REASONS, decode
from sp_data.dataset.loader.open_shard import IndexRecord, OpenShard
from sp_data.errors import CorruptFile, SpDataError
from sp_data.generation.inputs import picture_of
from sp_data.generation.picture import read_origin

MAX_PIXELS = 1_000_000
FORMS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")


def encoded(form: str, size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(out, form, **options)
    return out.getvalue()


def with_scans(count: int, size: tuple[int, int] = (2000, 2000)) -> bytes:
    """A progressive JPEG of one grey whose last scan comes `count` times more: each is a pass over all its pixels."""
    out = io.BytesIO()
    Image.new("L", size).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * count + data[-2:]


def of_size(width: int, height: int) -> bytes:
    """A small JPEG that says it is larger."""
    data = bytearray(encoded("JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_a_jpeg_of_countless_scans_is_refused_before_it_is_decoded() -> None:
    began = time.monotonic()
    for read in (lambda data: decode(data, 10_000_000), decode_rgb):
        with pytest.raises(Refused, match=f"bomb: a JPEG of more than {MAX_SCANS} scans"):
            read(with_scans(3000))
    assert time.monotonic() - began < 5


def test_a_progressive_jpeg_as_cameras_and_programs_make_them_is_read() -> None:
    assert decode(encoded("JPEG", progressive=True), MAX_PIXELS)[0].size == (24, 16)
    assert decode(with_scans(50, (64, 64)), MAX_PIXELS)[0].size == (64, 64)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_only_the_first_is_decoded(form: str) -> None:
    frames = [Image.new("RGB", (300, 300), (number, 0, 9)) for number in range(150)]
    out = io.BytesIO()
    frames[0].save(out, form, save_all=True, append_images=frames[1:])
    began = time.monotonic()
    assert decode(out.getvalue(), MAX_PIXELS)[0].getpixel((0, 0))[2] in range(5, 14)  # type: ignore[index]
    assert time.monotonic() - began < 5


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(("data", "reason"), [(of_size(20_000, 20_000), "too-many-pixels"), (EPS, "not-an-image")])
def test_a_bomb_and_a_program_in_a_tar_are_damaged_files(data: bytes, reason: str) -> None:
    shard = OpenShard.__new__(OpenShard)
    shard.files = SimpleNamespace(name="shards/00000.tar")  # type: ignore[assignment]
    shard.read = lambda *_: memoryview(data)  # type: ignore[method-assign]
    with pytest.raises(CorruptFile, match=rf"shards/00000\.tar: 000000\.jpg cannot be decoded \({reason}"):
        shard.picture("000000", IndexRecord(0, 0, 0, 0, 0, 0, 0), 64)


@few_and_many
def test_any_picture_is_read_or_refused_with_a_reason(num_inputs: int) -> None:
    palette = io.BytesIO()
    Image.new("P", (24, 16)).save(palette, "GIF", save_all=True, append_images=[Image.new("P", (24, 16), 3)])
    seeds = [encoded(form) for form in FORMS] + [encoded("JPEG", progressive=True), palette.getvalue()]
    seeds.append(encoded("TIFF", compression="tiff_lzw"))

    def read(data: bytes) -> None:
        for attempt in (
            lambda: decode(data, MAX_PIXELS),
            lambda: decode_rgb(data, MAX_PIXELS),
            lambda: check_header(data),
        ):
            try:
                attempt()
            except Refused as refusal:
                assert refusal.reason in REASONS
                assert str(refusal).isprintable()
        picture_of(data, "a picture")

    tokens = (b"\xff\xda", b"\xff\xd8", b"IDAT", b"zTXt", b"iCCP", b"VP8X", b"ANIM", b"\xff\xff\xff\xff", b"\0" * 8)
    fuzz(mutated(seeds, tokens), read, num_inputs, refusals=(SpDataError,))


def drawn(text: str, size: tuple[int, int] = (8, 8)) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("sp-data", text)
    out = io.BytesIO()
    Image.new("L", size).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def with_chunk(kind: bytes, body: bytes) -> bytes:
    data = drawn("{}")
    at = data.find(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    return data[:at] + chunk + data[at:]


@pytest.mark.parametrize(
    "data",
    [
        with_chunk(b"zTXt", b"sp-data\0\0" + zlib.compress(b"[" * 50_000_000)),
        with_chunk(b"zTXt", b"sp-data\0\0\xff"),
        with_chunk(b"iTXt", b""),
        with_chunk(b"IHDR", b"\0"),
        drawn("[" * 200_000),
        drawn('{"prompt": "x", "decoder": [], "seed": ' + "9" * 9000 + "}"),
        drawn('{"prompt": "x", "decoder": []}', (8000, 8000)),
        b"",
        b"\xff\xd8\xff",
    ],
)
def test_a_picture_whose_origin_cannot_be_read_is_a_damaged_file(data: bytes) -> None:
    with pytest.raises(CorruptFile, match=r"a\.png"):
        read_origin(data, "a.png")


@few_and_many
def test_any_origin_is_read_or_refused(num_inputs: int) -> None:
    seeds = [
        drawn('{"prompt": "a kid", "seed": 7, "decoder": [{"run": "decoder-1"}]}'),
        with_chunk(b"tEXt", b"sp-data\0{}"),
    ]

    def read(data: bytes) -> None:
        read_origin(data, "a.png")

    fuzz(
        mutated(seeds, (b"iTXt", b"zTXt", b"tEXt", b"sp-data\0", b"IEND", b"{", b'"')),
        read,
        num_inputs,
        refusals=(SpDataError,),
    )
