"""Pictures on disk: each as a PNG that says how it was made, beside a sheet of them all.

generated/a-kid-in-a-red-coat-seed-7-1f0c55ab.png    .json (on request)
          sheet-9d3e0c12.jpg
"""

from __future__ import annotations

import hashlib
import textwrap
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sp_data.generation.picture import GeneratedPicture
from sp_data.lake import Lake
from sp_data.runtime.contact_sheet import jpeg

GENERATED = "generated"
CELL_PX, LABEL_LINES, FONT_PX, GAP_PX = 192, 3, 12, 8
MAX_COLUMNS, MAX_SHEET = 8, 64


@dataclass(frozen=True, slots=True)
class WrittenPicture:
    made: GeneratedPicture
    path: str
    """Where its PNG lies: on disk, or the address in a remote lake."""


class PictureFolder:
    """Where pictures go: a folder on disk, or generated/ of a lake."""

    def __init__(self, lake: Lake, out: Path | None = None) -> None:
        self._lake, self._out = lake, out
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> str:
        """Publish a file whole or not at all; returns its path."""
        if self._out is None:
            # Without a lock: equal names mean equal bytes.
            self._lake.write_bytes(f"{GENERATED}/{name}", data)
            return self._lake.full(f"{GENERATED}/{name}")
        target = self._out / name
        # Another command may write an equal picture at the same time.
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        unfinished.write_bytes(data)
        unfinished.replace(target)
        return str(target)

    def write_each(self, pictures: Iterable[GeneratedPicture], *, sidecars: bool = False) -> Iterator[WrittenPicture]:
        """Each picture as soon as it is drawn, so that one that fails loses none before it."""
        for made in pictures:
            path = self.write(made.file_name, made.png())
            if sidecars:
                self.write(f"{made.file_name.removesuffix('.png')}.json", made.sidecar())
            yield WrittenPicture(made, path)

    def write_sheet(self, pictures: Sequence[GeneratedPicture], labels: Sequence[str] | None = None) -> str:
        """A JPEG of up to 64 pictures, each above its prompt and seed; returns its path."""
        shown = list(pictures[:MAX_SHEET])
        texts = list(labels or [f"{made.prompt} · seed {made.seed}".strip(" ·") for made in shown])[:MAX_SHEET]
        digest = hashlib.sha256("\n".join(made.file_name for made in pictures).encode()).hexdigest()[:8]
        return self.write(f"sheet-{digest}.jpg", jpeg(sheet([made.picture for made in shown], texts), 92))


def sheet(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int | None = None) -> Image.Image:
    """Pictures in rows, each above its label."""
    columns = columns or min(len(pictures), MAX_COLUMNS if len(pictures) > 4 else 4)
    cell_height = CELL_PX + LABEL_LINES * (FONT_PX + 3) + GAP_PX
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * (CELL_PX + GAP_PX) + GAP_PX, rows * cell_height + GAP_PX), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_PX)
    for position, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(position, columns)
        left, top = GAP_PX + column * (CELL_PX + GAP_PX), GAP_PX + row * cell_height
        fitted = fit(picture, CELL_PX)
        canvas.paste(fitted, (left + (CELL_PX - fitted.width) // 2, top + (CELL_PX - fitted.height) // 2))
        lines = textwrap.wrap(label, CELL_PX // 6)[:LABEL_LINES]
        pen.multiline_text((left, top + CELL_PX + 2), "\n".join(lines), "black", font, spacing=3)
    return canvas


def fit(picture: Image.Image, side_px: int) -> Image.Image:
    """A picture with its longer side that long; a small one enlarged by a whole factor, its pixels as squares."""
    longer = max(picture.size)
    if longer <= side_px // 2:
        factor = side_px // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, picture.width * side_px // longer), max(1, picture.height * side_px // longer))
    return picture.resize(size, Image.Resampling.LANCZOS)
