"""The normal form of a decoded picture: upright, 8-bit RGB, over white.

docs/dataset.md has the table of cases.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image, ImageFile

from sp_data.dataset.curate.icc import is_srgb, to_srgb

ORIENTATION = 0x0112
UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the picture upright. ImageOps.exif_transpose would also rewrite the
EXIF, which fails where that is broken."""
BROKEN_EXIF = (
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    OSError,
    struct.error,
    zlib.error,
)
WITH_ALPHA = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}
KNOWN = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", *WITH_ALPHA}
GREY_SCALE = {"L;2": 85, "L;4": 17}
"""How the file stores grey -> the factor by which Pillow stretches it to 8 bits."""
Transparency = int | tuple[int, ...] | bytes | None
"""What is transparent: a grey, a colour or an entry of the palette; or the opacity of each entry."""


class UnknownColours(ValueError):
    """Pixels of a mode that does not say which number is white."""


def stored_as(image: Image.Image) -> str:
    """How the file stores pixels, such as 'RGB;16B'. To be called before loading, which discards it."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def is_normal(image: Image.Image, stored: str) -> bool:
    """Whether a decoder that knows only 8-bit RGB, and neither EXIF nor profiles, reads the same picture."""
    profile = image.info.get("icc_profile")
    return (
        image.mode == "RGB"
        and "16" not in stored
        and "transparency" not in image.info
        and orientation(image) not in UPRIGHT_BY
        and (not profile or is_srgb(profile))
    )


def normal_form(image: Image.Image, stored: str) -> Image.Image:
    """A loaded picture as upright 8-bit RGB over white; `stored` is how its file stores it (`stored_as`).

    Raises UnknownColours.
    """
    transposition = UPRIGHT_BY.get(orientation(image))
    colours, alpha = _split_alpha(image, stored)
    rgb = to_srgb(colours, image.info.get("icc_profile"))
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    return rgb if transposition is None else rgb.transpose(transposition)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the EXIF is broken or has none."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except BROKEN_EXIF:
        return 1
    return value if isinstance(value, int) else 1


def _split_alpha(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours (8-bit L, RGB or CMYK), and opacity (L); None where every pixel is opaque."""
    transparency: Transparency = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        # The upper byte, which libpng and Pillow take of 16-bit RGB too; convert("L") would clip at 255.
        grey = np.asarray(image)
        alpha = (
            None if transparency is None else Image.fromarray(np.where(grey == transparency, 0, 255).astype(np.uint8))
        )
        return Image.fromarray((grey >> 8).astype(np.uint8)), alpha
    if image.mode not in KNOWN:
        raise UnknownColours(f"pixels of mode {image.mode}: which number is white is not said")
    if image.mode in WITH_ALPHA:
        return _without_alpha(image.convert(WITH_ALPHA[image.mode]))
    if transparency is not None:
        image.info["transparency"] = _as_decoded(transparency, stored)
        return _without_alpha(image.convert("LA" if image.mode in ("1", "L") else "RGBA"))
    target = {"1": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    return (image.copy() if image.mode == target else image.convert(target)), None


def _as_decoded(transparency: Transparency, stored: str) -> Transparency:
    """The transparent colour in the numbers of decoded pixels; Pillow leaves it in those of the file."""
    if isinstance(transparency, int):
        return transparency * GREY_SCALE.get(stored, 1)
    if isinstance(transparency, tuple) and "16" in stored:
        # The lower bytes are gone: a colour that differs only in them counts as transparent too.
        return tuple(channel >> 8 for channel in transparency)
    return transparency


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    alpha = image.getchannel("A")
    return image.convert("RGB" if image.mode == "RGBA" else "L"), alpha
