"""What kind of picture a downloaded file is: Pillow's word for its type and size, and whether the file is whole.

Only the header is read: a picture is decoded when it is curated.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

TAIL_BYTES = 1 << 16
ALIASES = {
    # A JPEG with further pictures behind it, as many cameras and telephones write it.
    "image/mpo": "image/jpeg",
    "image/apng": "image/png",
}


@dataclass(frozen=True, slots=True)
class PictureType:
    """Such as ('image/png', 96, 64)."""

    mime: str
    width: int
    height: int


def picture_type(file: Path) -> PictureType | None:
    """The type of a picture, None if it is none that Pillow knows."""
    try:
        with warnings.catch_warnings():
            # A picture of very many pixels is refused when it is curated, with its reason.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                name = str(picture.format)
                width, height = picture.size
    # Pillow has some forty readers, and what they raise on damaged files is no list that one could write down.
    except Exception:  # noqa: BLE001
        return None
    mime = Image.MIME.get(name) or f"image/x-{name.lower()}"
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        return None
    return PictureType(ALIASES.get(mime, mime), width, height)


def is_cut(file: Path, mime: str) -> bool:
    """Whether the end of a picture is missing, as far as its type shows it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(12)
        stream.seek(max(0, size - TAIL_BYTES))
        tail = stream.read().rstrip(b"\0\r\n")
    match mime:
        case "image/png":
            return b"IEND" not in tail
        case "image/webp":
            return size < 8 + int.from_bytes(head[4:8], "little")
        case "image/gif":
            return not tail.endswith(b";")
        case "image/jpeg":
            # Cameras put more behind the picture; the picture before it, such as a preview, has an end of its own.
            return not tail.endswith(b"\xff\xd9") and not _can_be_decoded(file)
        case _:
            return False


def _can_be_decoded(file: Path) -> bool:
    try:
        with warnings.catch_warnings(), Image.open(file) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture.draft("L", (1, 1))  # at an eighth of its size
            picture.load()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
