"""Contact sheets: many pictures in one JPEG, small enough for a Prefect artifact (which is listed whole)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

MAX_BYTES = 150_000


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int = 8, side_px: int = 96) -> bytes:
    """A JPEG of at most 150 kB: the pictures in rows of `columns`, each fitted into a square.

    Raises ValueError without pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet of no pictures")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    gap = 4
    sheet = Image.new("RGB", (columns * (side_px + gap) + gap, rows * (side_px + gap) + gap), "white")
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        small = picture.convert("RGB")
        small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        # A small picture is enlarged, its pixels shown as squares.
        factor = side_px // max(small.size)
        small = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
        left = gap + column * (side_px + gap) + (side_px - small.width) // 2
        top = gap + row * (side_px + gap) + (side_px - small.height) // 2
        sheet.paste(small, (left, top))
    for quality in (85, 70, 50, 30):
        data = jpeg(sheet, quality)
        if len(data) <= MAX_BYTES:
            return data
    return jpeg(sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS), 50)


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def data_uri(data: bytes, mime: str = "image/jpeg") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
