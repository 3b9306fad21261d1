"""The pictures of a run in one growing grid: a row for each checkpoint, a column for each caption.

         a kid in a red coat …   a kid in a teal coat …
real     [picture]               [picture]
200      [drawn]                 [drawn]            fixed embeddings, fixed noise: only the weights change
400      [drawn]                 [drawn]

runs/decoder-1f0c55ab/samples/real.png  step-00000200.png  step-00000400.png  grid.png
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sp_data.lake import Lake

CELL_PX = 96
MAX_ROWS = 12
"""More checkpoints are thinned out; the first and the last stay."""
GAP_PX, LABEL_PX, CAPTION_LINES = 4, 56, 4
FONT_PX = 11


def grid_path(run: str) -> str:
    return f"runs/{run}/samples/grid.png"


def row_path(run: str, step: int | None) -> str:
    """The pictures of a step, side by side in the network's own size; None: the real pictures."""
    return f"runs/{run}/samples/{'real' if step is None else f'step-{step:08d}'}.png"


def keep_row(lake: Lake, run: str, step: int | None, pictures: Sequence[Image.Image]) -> None:
    """Publish the pictures of a step."""
    side = pictures[0].width
    strip = Image.new("RGB", (side * len(pictures), side))
    for position, picture in enumerate(pictures):
        strip.paste(picture, (position * side, 0))
    lake.write_bytes(row_path(run, step), _png(strip))


def cut_back(lake: Lake, run: str, step: int) -> None:
    """Remove the rows of later steps; of a run that begins anew, the real pictures too."""
    for path in lake.list(f"runs/{run}/samples"):
        name = path.rsplit("/", 1)[1]
        number = name.removeprefix("step-").removesuffix(".png")
        if step == 0 or (number.isdigit() and int(number) > step):
            lake.remove(path)


def draw_grid(lake: Lake, run: str, captions: Sequence[str]) -> None:
    """Put the rows of all steps so far into one picture, and publish it."""
    folder = f"runs/{run}/samples/step-"
    steps = [
        int(path.removeprefix(folder).removesuffix(".png"))
        for path in lake.list(f"runs/{run}/samples")
        if path.startswith(folder) and path.endswith(".png")
    ]
    rows: list[int | None] = [None, *_thinned(sorted(steps))]
    strips = [_open(lake.read_bytes(row_path(run, step))) for step in rows]
    count = len(captions)
    font = ImageFont.load_default(FONT_PX)
    top = CAPTION_LINES * (FONT_PX + 2) + GAP_PX
    width = LABEL_PX + count * (CELL_PX + GAP_PX)
    grid = Image.new("RGB", (width, top + len(rows) * (CELL_PX + GAP_PX)), "white")
    canvas = ImageDraw.Draw(grid)
    for column, caption in enumerate(captions):
        lines = textwrap.wrap(caption, CELL_PX // 6)[:CAPTION_LINES]
        canvas.multiline_text((LABEL_PX + column * (CELL_PX + GAP_PX), 0), "\n".join(lines), "black", font, spacing=2)
    for row, (step, strip) in enumerate(zip(rows, strips, strict=True)):
        y = top + row * (CELL_PX + GAP_PX)
        canvas.text((2, y + CELL_PX // 2), "real" if step is None else f"{step:,}", "black", font)
        side = strip.height
        for column in range(count):
            picture = strip.crop((column * side, 0, (column + 1) * side, side))
            enlarged = picture.resize((CELL_PX, CELL_PX), _filter(side))
            grid.paste(enlarged, (LABEL_PX + column * (CELL_PX + GAP_PX), y))
    lake.write_bytes(grid_path(run), _png(grid))


def _thinned(steps: list[int]) -> list[int]:
    if len(steps) <= MAX_ROWS:
        return steps
    last = len(steps) - 1
    return [steps[round(position * last / (MAX_ROWS - 1))] for position in range(MAX_ROWS)]


def _filter(side: int) -> Image.Resampling:
    """Pixels of small pictures are shown as squares, where these come out equal."""
    return Image.Resampling.NEAREST if CELL_PX % side == 0 else Image.Resampling.LANCZOS


def _open(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
        return opened.convert("RGB")


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
