"""Awkward pictures, each made here: kept as they should look, or dropped with a reason, never silently wrong.

The expected pixels are drawn here, not taken from the code: PICTURE has four plain quarters, and each case says what
must be seen. What curate hands on (the file itself, or its normalised copy) is also read as img2dataset reads it.
`pytest -s` prints the table of docs/dataset.md.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from sp_data.dataset.curate.decoding import Refused
from sp_data.dataset.curate.pictures import REASONS, read_picture
from sp_data.recipe import Curate

Pixels = npt.NDArray[np.uint8]
LIMITS = Curate.model_validate({"min_side_px": 8})
RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)
PICTURE: Pixels = np.zeros((16, 32, 3), np.uint8)
"""Red and green above, blue and yellow below: no two sides and no two corners are alike."""
PICTURE[:8, :16], PICTURE[:8, 16:], PICTURE[8:, :16], PICTURE[8:, 16:] = RED, GREEN, BLUE, YELLOW
GREY: Pixels = np.repeat(np.array([[0, 85, 170, 255] * 4] * 8, np.uint8), 2, axis=0)
"""16 x 16: four greys that 2, 4, 8 and 16 bits can all say."""
LEFT_OUT: Pixels = PICTURE.copy()
"""PICTURE with a white upper left quarter."""
LEFT_OUT[:8, :16] = WHITE
NOISE: Pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
SHADES = np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint16) * 256 + 7
"""16-bit colours; none has 255 in its high byte."""


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    expected: Pixels | str
    """The pixels that must be seen, or the reason why the picture is dropped."""
    copied: bool = True
    """Whether the picture is handed on as a normalised copy."""
    within: int = 0
    """The largest difference allowed, of 255, for lossy formats."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


END = chunk(b"IEND", b"")


def raw_png(
    size: tuple[int, int],
    depth: int,
    colour: int,
    rows: Sequence[bytes],
    *before: bytes,
    end: bytes = chunk(b"IEND", b""),
) -> bytes:
    """A PNG made by hand, because Pillow writes few of the forms that it reads."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + end


def rows_of(array: npt.NDArray[np.generic]) -> list[bytes]:
    return [row.tobytes() for row in array]


def rgb_png(*before: bytes, end: bytes = END) -> bytes:
    return raw_png((32, 16), 8, 2, rows_of(PICTURE), *before, end=end)


def few_bits(depth: int) -> list[bytes]:
    """GREY with `depth` bits a pixel."""
    numbers = (GREY // (255 // (2**depth - 1))).astype(np.uint8)
    bits = np.unpackbits(numbers[:, :, None], axis=2)[:, :, 8 - depth :]
    return rows_of(np.packbits(bits.reshape(16, -1), axis=1))


def interlaced() -> bytes:
    rows = b""
    for left, top, x, y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in PICTURE[top::y, left::x])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 16, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    out = BytesIO()
    (image or Image.fromarray(PICTURE)).save(out, form, **options)
    return out.getvalue()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return saved("JPEG", image, **{"quality": 100, "subsampling": 0, **options})


def with_alpha() -> Image.Image:
    image = Image.fromarray(PICTURE).convert("RGBA")
    image.paste((9, 9, 9, 0), (0, 0, 16, 8))
    return image


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def upright(orientation: int) -> Pixels:
    """PICTURE as this EXIF orientation says: the number names the sides that the stored first row and column are."""
    flipped = {2: PICTURE[:, ::-1], 3: PICTURE[::-1, ::-1], 4: PICTURE[::-1], 5: PICTURE.transpose(1, 0, 2)}
    turned = {6: np.rot90(PICTURE, -1), 7: PICTURE[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PICTURE)}
    return (flipped | turned)[orientation]


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB in which red and blue have changed places."""
    return srgb().replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)


def odd_inks() -> bytes:
    """A CMYK profile in which cyan is black and no other ink is seen: a table of 2 x 2 x 2 x 2 colours."""
    line = bytes(range(256))
    colours = b"".join(bytes([0 if node >= 8 else 255, 128, 128]) for node in range(16))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + line * 4 + colours + line * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"A2B0", table + bytes(-len(table) % 4)), (b"wtpt", white)]
    place, listed = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags))
    for name, body in tags:
        listed += name + struct.pack(">II", place, len(body))
        place += len(body)
    header = struct.pack(">I", place) + bytes(4) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp"
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    header = header.ljust(68, b"\0") + illuminant
    return header.ljust(128, b"\0") + listed + b"".join(body for _, body in tags)


def inks() -> Image.Image:
    """CMYK: cyan on the left, magenta and yellow on the right."""
    image = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    image.paste((0, 255, 255, 0), (16, 0, 32, 16))
    return image


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Pixels:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16], image[:, 16:] = left, right
    return image


def partial_gif(transparent: bool) -> bytes:
    """A canvas of 32 x 16 whose first frame draws the yellow quarter only. Colour 0 is red."""
    table = bytes([*RED, *YELLOW])
    control = b"\x21\xf9\x04\x01\0\0\0\0" if transparent else b""
    # LZW, 2 bits a colour at first: clear, then every pixel as colour 1, each after a clear so that codes stay 3 bits.
    codes = [code for _ in range(16 * 8) for code in (4, 1)] + [5]
    bits = "".join(format(code, "03b")[::-1] for code in codes)
    packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(packed[at : at + 255])]) + packed[at : at + 255] for at in range(0, len(packed), 255))
    frame = b"\x2c" + struct.pack("<HHHHB", 16, 8, 16, 8, 0) + b"\x02" + blocks + b"\0"
    return b"GIF89a" + struct.pack("<HHBBB", 32, 16, 0x80, 0, 0) + table + control + frame + b"\x3b"


def huge_jpeg() -> bytes:
    """A small JPEG whose header says 30000 x 20000."""
    data = jpeg()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 20000, 30000) + data[at + 9 :]


def rgb_of(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def without(grey: int) -> Pixels:
    return rgb_of(np.where(grey == GREY, 255, GREY).astype(np.uint8))


def two_frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)], "duration": 100}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def broken(data: bytes, kind: bytes) -> bytes:
    """The PNG with a wrong checksum for one chunk."""
    at = data.index(kind)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    return data[: at + 4 + length] + b"\0\0\0\0" + data[at + 8 + length :]


def corpus() -> list[Case]:
    bomb = zlib.compress(bytes(20_000_000), 9)
    deep = SHADES.astype(">u2")
    high = (SHADES >> 8).astype(np.uint8)
    alpha = np.full((16, 16, 1), 0xFFFF, ">u2")
    alpha[:4] = 0
    over = high.copy()
    over[:4] = 255
    shade = SHADES[5, 5]
    without_shade = high.copy()
    without_shade[(high == high[5, 5]).all(axis=2)] = 255
    noise = Image.fromarray(NOISE)
    bits = np.where(GREY > 100, 255, 0).astype(np.uint8)
    drawn_quarter = np.full_like(PICTURE, 255)
    drawn_quarter[8:, 16:] = YELLOW
    palette = Image.fromarray(PICTURE).quantize(4)
    corner = palette.getpixel((0, 0))
    tagged = rgb_png(chunk(b"tEXt", b"Comment\0hello"))
    return [
        Case("PNG", rgb_png(), PICTURE, copied=False),
        Case("PNG, interlaced", interlaced(), PICTURE, copied=False),
        Case("PNG, gamma", rgb_png(chunk(b"gAMA", struct.pack(">I", 100_000))), PICTURE, copied=False),
        Case("PNG, sRGB profile", saved("PNG", icc_profile=srgb()), PICTURE, copied=False),
        Case("PNG, another profile", saved("PNG", icc_profile=swapped_profile()), PICTURE[:, :, ::-1], within=2),
        Case("PNG, broken profile", saved("PNG", icc_profile=b"no profile"), PICTURE, copied=False),
        Case("PNG, profile that is no zlib", rgb_png(chunk(b"iCCP", b"x\0\0junk")), PICTURE, copied=False),
        Case("PNG, RGBA", saved("PNG", with_alpha()), LEFT_OUT),
        Case("PNG, RGB with a transparent colour", rgb_png(chunk(b"tRNS", struct.pack(">3H", *RED))), LEFT_OUT),
        Case("PNG, palette", saved("PNG", palette), PICTURE),
        Case("PNG, palette with a transparent entry", saved("PNG", palette, transparency=corner), LEFT_OUT),
        Case("PNG, 1 bit", saved("PNG", Image.fromarray(bits).convert("1")), rgb_of(bits)),
        Case("PNG, grey of 2 bits", raw_png((16, 16), 2, 0, few_bits(2)), rgb_of(GREY)),
        Case(
            "PNG, grey of 2 bits, one transparent",
            raw_png((16, 16), 2, 0, few_bits(2), chunk(b"tRNS", b"\0\1")),
            without(85),
        ),
        Case(
            "PNG, grey of 4 bits, one transparent",
            raw_png((16, 16), 4, 0, few_bits(4), chunk(b"tRNS", b"\0\5")),
            without(85),
        ),
        Case("PNG, grey of 8 bits", saved("PNG", Image.fromarray(GREY)), rgb_of(GREY)),
        Case(
            "PNG, grey of 8 bits, one transparent",
            raw_png((16, 16), 8, 0, rows_of(GREY), chunk(b"tRNS", b"\0\0")),
            without(0),
        ),
        Case("PNG, grey of 16 bits", raw_png((16, 16), 16, 0, rows_of(GREY.astype(">u2") * 257)), rgb_of(GREY)),
        Case(
            "PNG, grey of 16 bits, one transparent",
            raw_png((16, 16), 16, 0, rows_of(GREY.astype(">u2") * 257), chunk(b"tRNS", b"\xaa\xaa")),
            without(170),
        ),
        Case(
            "PNG, grey with alpha",
            raw_png((16, 16), 8, 4, rows_of(np.stack([GREY, np.where(GREY == 85, 0, 255).astype(np.uint8)], 2))),
            without(85),
        ),
        Case("PNG, RGB of 16 bits", raw_png((16, 16), 16, 2, rows_of(deep)), high),
        Case(
            "PNG, RGB of 16 bits, one transparent",
            raw_png((16, 16), 16, 2, rows_of(deep), chunk(b"tRNS", struct.pack(">3H", *shade))),
            without_shade,
        ),
        Case(
            "PNG, RGBA of 16 bits",
            raw_png((16, 16), 16, 6, rows_of(np.concatenate([deep, alpha], 2).astype(">u2"))),
            over,
        ),
        Case("PNG, EXIF orientation 6", saved("PNG", exif=exif(6)), upright(6)),
        Case("PNG, animated", saved("PNG", **two_frames()), PICTURE),
        Case("PNG, a comment with a wrong checksum", broken(tagged, b"tEXt"), PICTURE),
        Case("PNG, pixels with a wrong checksum", broken(rgb_png(), b"IDAT"), "damaged"),
        Case("PNG, without its end", rgb_png(end=b""), PICTURE),
        Case(
            "PNG, more data than pixels", raw_png((32, 16), 8, 2, [*rows_of(PICTURE), bytes(96)]), PICTURE, copied=False
        ),
        Case("PNG, half of its rows", raw_png((32, 16), 8, 2, rows_of(PICTURE[:8])), "cut-off"),
        Case("PNG, cut", cut(saved("PNG", noise)), "cut-off"),
        Case("PNG, bomb in the profile", rgb_png(chunk(b"iCCP", b"x\0\0" + bomb)), "bomb"),
        Case("PNG, bomb in zTXt", rgb_png(chunk(b"zTXt", b"x\0\0" + bomb)), "bomb"),
        Case("PNG, bomb in iTXt", rgb_png(chunk(b"iTXt", b"x\0\1\0\0\0" + bomb)), "bomb"),
        Case("PNG, 30000 x 20000", raw_png((30000, 20000), 1, 0, [b""]), "too-many-pixels"),
        Case("PNG, 1 x 1", saved("PNG", Image.new("RGB", (1, 1))), "too-small"),
        Case("PNG, 100 x 8", saved("PNG", Image.new("RGB", (100, 8))), "too-long"),
        Case("JPEG", jpeg(), PICTURE, copied=False, within=3),
        Case("JPEG, progressive", jpeg(progressive=True), PICTURE, copied=False, within=3),
        Case("JPEG, sRGB profile", jpeg(icc_profile=srgb()), PICTURE, copied=False, within=3),
        Case("JPEG, another profile", jpeg(icc_profile=swapped_profile()), PICTURE[:, :, ::-1], within=5),
        *(Case(f"JPEG, EXIF orientation {n}", jpeg(exif=exif(n)), upright(n), within=3) for n in range(2, 9)),
        Case("JPEG, EXIF orientation 9", jpeg(exif=exif(9)), PICTURE, copied=False, within=3),
        Case("JPEG, broken EXIF", jpeg(exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), PICTURE, copied=False, within=3),
        Case("JPEG, EXIF of junk", jpeg(exif=b"Exif\0\0" + bytes(range(200))), PICTURE, copied=False, within=3),
        Case(
            "JPEG, grey",
            jpeg(Image.fromarray(GREY).resize((64, 64), 0)),
            rgb_of(GREY.repeat(4, 0).repeat(4, 1)),
            within=3,
        ),
        Case("JPEG, CMYK (Adobe, inverted)", jpeg(inks()), halves((0, 255, 255), RED), within=5),
        Case("JPEG, CMYK with a profile", jpeg(inks(), icc_profile=odd_inks()), halves((0, 0, 0), WHITE), within=6),
        Case(
            "JPEG, CMYK with a profile for RGB", jpeg(inks(), icc_profile=srgb()), halves((0, 255, 255), RED), within=5
        ),
        Case(
            "JPEG, several pictures (MPO)",
            saved("MPO", save_all=True, append_images=[Image.fromarray(PICTURE)], quality=100, subsampling=0),
            PICTURE,
            within=3,
        ),
        Case("JPEG, cut", cut(jpeg(noise)), "cut-off"),
        Case("JPEG, 30000 x 20000", huge_jpeg(), "too-many-pixels"),
        Case("GIF", saved("GIF", palette), PICTURE),
        Case("GIF, animated", saved("GIF", **two_frames()), PICTURE),
        Case("GIF, first frame covers a quarter", partial_gif(False), drawn_quarter),
        Case("GIF, the same, transparent", partial_gif(True), drawn_quarter),
        Case("GIF, cut", cut(saved("GIF", noise.quantize(256))), "cut-off"),
        Case("WebP, lossless", saved("WEBP", lossless=True), PICTURE),
        Case("WebP, lossy", saved("WEBP", Image.new("RGB", (32, 16), BLUE), quality=100), halves(BLUE, BLUE), within=4),
        Case("WebP, alpha", saved("WEBP", with_alpha(), lossless=True), LEFT_OUT),
        Case("WebP, animated", saved("WEBP", lossless=True, **two_frames()), PICTURE),
        Case("WebP, EXIF orientation 8", saved("WEBP", lossless=True, exif=exif(8)), upright(8)),
        Case("WebP, cut", cut(saved("WEBP", noise, lossless=True)), "damaged"),
        Case("AVIF", saved("AVIF", Image.new("RGB", (32, 16), BLUE), quality=100), halves(BLUE, BLUE), within=4),
        Case("TIFF", saved("TIFF"), PICTURE),
        Case("TIFF, EXIF orientation 6", saved("TIFF", exif=exif(6)), upright(6)),
        Case("TIFF, 32 bits a pixel", saved("TIFF", Image.new("F", (32, 16))), "unknown-colours"),
        Case("BMP", saved("BMP"), PICTURE),
        Case("ICO", saved("ICO", sizes=[(16, 16)]), "not-an-image"),
        Case("SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "vector"),
        Case("SVG, gzip", gzip.compress(b"<svg/>"), "not-an-image"),
        Case("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 16\n", "not-an-image"),
        Case("a web page", b"<!DOCTYPE html><html><title>Just a moment...</title><svg/></html>", "not-an-image"),
        Case("nothing", b"", "not-an-image"),
        Case("a signature alone", b"\x89PNG\r\n\x1a\n", "cut-off"),
        Case("junk after a JPEG's first bytes", b"\xff\xd8\xff\xe0 is no picture", "damaged"),
    ]


CASES = corpus()


def as_img2dataset_reads(data: bytes) -> Pixels:
    """What img2dataset 1.47 makes of a file before it scales it (resizer.py), as RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.ndim == 3, "grey stays grey in img2dataset"
    assert image.shape[2] == 3
    assert image.dtype == np.uint8
    return image[:, :, ::-1]


def test_there_are_at_least_70_cases_with_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 70


# Every file is named .png: the name decides nothing.
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_awkward_picture_is_right_or_dropped(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(case.data)
    try:
        picture = read_picture(path, LIMITS)
    except Refused as refused:
        print(f"| {case.name} | dropped: {refused.reason} | {refused.detail} |")  # noqa: T201
        assert (refused.reason, refused.reason in REASONS) == (case.expected, True), refused
        assert str(tmp_path) not in refused.detail
        return
    print(f"| {case.name} | {'normalised copy' if not picture.file_is_normal else 'as it is'} | |")  # noqa: T201
    assert not isinstance(case.expected, str), f"kept, expected {case.expected}"
    rgb = np.asarray(picture.image)
    assert rgb.shape == case.expected.shape
    assert np.abs(rgb.astype(int) - case.expected).max() <= case.within
    assert picture.file_is_normal is not case.copied
    if picture.file_is_normal:
        handed_on = case.data
    else:
        copy = BytesIO()
        picture.image.save(copy, "PNG")
        handed_on = copy.getvalue()
    np.testing.assert_array_equal(as_img2dataset_reads(handed_on), rgb)


@pytest.mark.parametrize(
    "case", [case for case in CASES if not isinstance(case.expected, str)], ids=lambda case: case.name
)
def test_cut_anywhere_it_is_dropped_or_still_right(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(case.data)
    whole = np.asarray(read_picture(path, LIMITS).image)
    for eighth in range(1, 8):
        path.write_bytes(case.data[: len(case.data) * eighth // 8])
        try:
            rgb = np.asarray(read_picture(path, LIMITS).image)
        except Refused:
            continue
        np.testing.assert_array_equal(rgb, whole, err_msg=f"silently wrong when cut at {eighth}/8")
