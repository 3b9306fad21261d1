"""Embedded ICC profiles: the numbers of a picture, in the colours that were meant by them.

CLIP, img2dataset and every model here read sRGB and look at no profile. A picture in Adobe RGB would look pale to them,
and one in CMYK wrong.
"""

from __future__ import annotations

import functools
import logging
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

SPACE_OF = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
"""Pillow's mode -> the colour space that a profile must be of."""
NEAR_SRGB = 2
"""Many programs embed a profile of sRGB itself, rounded in their own way: up to so much of 255, colours are equal."""
BROKEN_PROFILE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit L, RGB or CMYK picture as RGB, through its profile if it has one that fits, else as Pillow converts."""
    if profile and not (image.mode == "RGB" and is_srgb(profile)):
        try:
            return _through(image, profile)
        except BROKEN_PROFILE as error:
            # What is wrong with a profile is no fault of the picture: browsers show it without.
            log.debug("an ICC profile of %d bytes is not used: %s", len(profile), error)
    return image.convert("RGB")


@functools.lru_cache(maxsize=256)
def is_srgb(profile: bytes) -> bool:
    """Whether RGB pictures with this profile look the same without: it is sRGB, of another space, or broken.

    It is asked what it does to a lattice of 17 x 17 x 17 colours.
    """
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)
    try:
        moved = np.asarray(_through(Image.fromarray(lattice), profile))
    except BROKEN_PROFILE:
        return True
    return int(np.abs(moved.astype(np.int16) - lattice).max()) <= NEAR_SRGB


def _through(image: Image.Image, profile: bytes) -> Image.Image:
    """Raises one of BROKEN_PROFILE."""
    embedded: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
    if embedded.profile.xcolor_space != SPACE_OF[image.mode]:
        raise ValueError(f"it is of the colour space {embedded.profile.xcolor_space!r}, the picture is {image.mode}")
    transform = ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    made = ImageCms.applyTransform(image, transform)
    if made is None:
        raise ValueError("it gives no picture")
    return made
