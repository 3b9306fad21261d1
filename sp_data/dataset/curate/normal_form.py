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
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes it upright. ImageOps.exif_transpose would also write the EXIF anew, which fails on
pictures whose EXIF is broken."""
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
"""How Pillow stretches grey of few bits to 8."""
Key = int | tuple[int, ...] | bytes | None
"""What is transparent: a grey, a colour, or an entry of the palette; or how much each entry of it is seen."""


class UnknownColours(ValueError):
    """Numbers of which nobody says which is white."""


def stored_as(image: Image.Image) -> str:
    """How the file holds pixels, such as 'RGB;16B'. Asked before loading, which forgets it."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def is_normal(image: Image.Image, stored: str) -> bool:
    """Whether a decoder that knows of 8-bit RGB only, and of neither EXIF nor profiles, reads the same."""
    profile = image.info.get("icc_profile")
    return (
        image.mode == "RGB"
        and "16" not in stored
        and "transparency" not in image.info
        and orientation(image) not in TURNED
        and (not profile or is_srgb(profile))
    )


def normal_form(image: Image.Image, stored: str) -> Image.Image:
    """A loaded picture as upright 8-bit RGB over white; `stored` says how its file held it (`stored_as`).

    Raises UnknownColours.
    """
    turn = TURNED.get(orientation(image))
    colours, alpha = _apart(image, stored)
    made = to_srgb(colours, image.info.get("icc_profile"))
    if alpha is not None:
        made.putalpha(alpha)
        made = Image.alpha_composite(Image.new("RGBA", made.size, "white"), made).convert("RGB")
    return made if turn is None else made.transpose(turn)


def orientation(image: Image.Image) -> int:
    """As EXIF says, 1 (upright) where that is broken or says nothing."""
    try:
        said = image.getexif().get(ORIENTATION, 1)
    except BROKEN_EXIF:
        return 1
    return said if isinstance(said, int) else 1


def _apart(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours (8-bit L, RGB or CMYK), and how much of each pixel is seen (L), None for all of it."""
    key: Key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        # The upper byte, as libpng and Pillow take it of 16-bit RGB; convert("L") would clip at 255.
        deep = np.asarray(image)
        seen = None if key is None else Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8))
        return Image.fromarray((deep >> 8).astype(np.uint8)), seen
    if image.mode not in KNOWN:
        raise UnknownColours(f"pixels of mode {image.mode}: which number is white is not said")
    if image.mode in WITH_ALPHA:
        return _without_alpha(image.convert(WITH_ALPHA[image.mode]))
    if key is not None:
        image.info["transparency"] = _as_decoded(key, stored)
        return _without_alpha(image.convert("LA" if image.mode in ("1", "L") else "RGBA"))
    target = {"1": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    return (image.copy() if image.mode == target else image.convert(target)), None


def _as_decoded(key: Key, stored: str) -> Key:
    """The transparent colour in the numbers that Pillow decodes to; it leaves it in those of the file."""
    if isinstance(key, int):
        return key * GREY_SCALE.get(stored, 1)
    if isinstance(key, tuple) and "16" in stored:
        # The lower bytes are gone; a colour that differs in them only is taken for transparent too.
        return tuple(part >> 8 for part in key)
    return key


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    alpha = image.getchannel("A")
    return image.convert("RGB" if image.mode == "RGBA" else "L"), alpha
