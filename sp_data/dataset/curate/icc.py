"""Embedded ICC profiles: convert a picture to the colours that its profile means.

CLIP, img2dataset and every model here read sRGB and ignore profiles. A picture in Adobe RGB would look pale to them,
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
"""Pillow's mode -> the colour space that its profile must have."""
NEAR_SRGB = 2
"""Colours count as equal up to this difference, of 255: many programs embed sRGB itself, rounded in their own way."""
BROKEN_PROFILE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit L, RGB or CMYK picture as RGB, by its profile if it has one that fits, else as Pillow converts."""
    if profile and not (image.mode == "RGB" and is_srgb(profile)):
        try:
            return _by_profile(image, profile)
        except BROKEN_PROFILE as error:
            # A broken profile does not spoil the picture: browsers ignore it.
            log.debug("an ICC profile of %d bytes is not used: %s", len(profile), error)
    return image.convert("RGB")


@functools.lru_cache(maxsize=256)
def is_srgb(profile: bytes) -> bool:
    """Whether RGB pictures look the same without this profile: it is sRGB, of another colour space, or broken.

    Tested on a lattice of 17 x 17 x 17 colours.
    """
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)
    try:
        converted = np.asarray(_by_profile(Image.fromarray(lattice), profile))
    except BROKEN_PROFILE:
        return True
    return int(np.abs(converted.astype(np.int16) - lattice).max()) <= NEAR_SRGB


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture in sRGB, by its profile. Raises one of BROKEN_PROFILE."""
    embedded: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
    if embedded.profile.xcolor_space != SPACE_OF[image.mode]:
        raise ValueError(f"its colour space is {embedded.profile.xcolor_space!r}, the picture is {image.mode}")
    transform = ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("it gives no picture")
    return converted
