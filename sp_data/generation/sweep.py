"""A sweep: one prompt at one seed with every combination of some options, in a labelled grid.

                     decoder 1     decoder 3     decoder 5
    prior 1,  8      [picture]     [picture]     [picture]
    prior 1,  25     [picture]     [picture]     [picture]
    prior 5,  8      …

The scales that suit a decoder are learnt by looking; they differ from decoder to decoder, and from its first unet to
its upsampler.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sp_data.errors import UsageError
from sp_data.generation.files import CELL_PX, FONT_PX, GAP_PX, fit
from sp_data.generation.generator import ImageGenerator, OnStep
from sp_data.generation.options import SamplingOptions
from sp_data.generation.picture import GeneratedPicture

MAX_PICTURES = 256
NAMES = {"sampler": "", "steps": "steps ", "prior_cond_scale": "prior ", "cond_scale": "decoder ", "eta": "eta "}
"""Options that a sweep takes several values of, and how they are labelled; the last varied one runs across."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Option -> its values; options with one value are not labelled."""

    values: dict[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        """Raises UsageError for an option that cannot be swept, none at all, or too many pictures."""
        for name, values in self.values.items():
            if name not in NAMES:
                raise UsageError(f"a sweep of {name}: expected {', '.join(NAMES)}")
            if not values or len(set(values)) != len(values):
                raise UsageError(f"a sweep of {name} over {list(values)}: expected different values")
        if len(self) > MAX_PICTURES:
            raise UsageError(f"a sweep of {len(self)} pictures: at most {MAX_PICTURES}; give fewer values")
        if len(self) < 2:
            raise UsageError("a sweep of one picture: give an option several values, such as --steps 8,25")

    def __len__(self) -> int:
        count = 1
        for values in self.values.values():
            count *= len(values)
        return count

    @property
    def varied(self) -> list[str]:
        return [name for name in NAMES if len(self.values.get(name, ())) > 1]

    @property
    def num_columns(self) -> int:
        return len(self.values[self.varied[-1]])

    def settings(self) -> list[dict[str, Any]]:
        """The options of each picture, row by row."""
        names = [name for name in NAMES if name in self.values]
        # The varied options come last to first: the last of them changes from picture to picture.
        return [
            dict(zip(names, combination, strict=True))
            for combination in itertools.product(*(self.values[name] for name in names))
        ]

    def label(self, settings: dict[str, Any], names: Sequence[str]) -> str:
        return ", ".join(f"{NAMES[name]}{_shown(settings[name])}" for name in names)


def sweep(
    generator: ImageGenerator,
    prompt: str,
    axes: Sweep,
    *,
    seed: int = 0,
    options: SamplingOptions | None = None,
    on_step: OnStep | None = None,
) -> Iterator[GeneratedPicture]:
    """A picture of each combination, row by row of the grid. Raises UsageError before the first one if the models
    cannot do one of them."""
    if options is not None and options.best_of > 1:
        raise UsageError("--best-of: the pictures of a sweep have one seed; none is chosen")
    each = [replace(options or SamplingOptions(), **settings) for settings in axes.settings()]
    if any(chosen.sampler == "ddim" for chosen in each):
        # Its noise is compared with samplers that have none.
        each = [chosen if chosen.sampler == "ddim" else replace(chosen, eta=1.0) for chosen in each]
    for chosen in each:
        generator.settled(chosen, "dream")
    drawings = [generator.dream([prompt], seed=seed, options=chosen, on_step=on_step) for chosen in each]
    return itertools.chain.from_iterable(drawings)


def grid(pictures: Sequence[GeneratedPicture], axes: Sweep, title: str) -> Image.Image:
    """The pictures of a sweep with their labels, under the prompt."""
    columns, settings = axes.num_columns, axes.settings()
    *down, across = axes.varied
    rows = len(settings) // columns
    font, pen_width = ImageFont.load_default(FONT_PX), 11 * FONT_PX
    left = pen_width if down else GAP_PX
    top = 2 * (FONT_PX + GAP_PX) + GAP_PX
    size = (left + columns * (CELL_PX + GAP_PX), top + rows * (CELL_PX + GAP_PX))
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP_PX, GAP_PX), title, "black", font)
    for column in range(columns):
        x = left + column * (CELL_PX + GAP_PX)
        pen.text((x, GAP_PX + FONT_PX + GAP_PX), axes.label(settings[column], [across]), "black", font)
    for position, made in enumerate(pictures):
        row, column = divmod(position, columns)
        y = top + row * (CELL_PX + GAP_PX)
        if column == 0 and down:
            label = axes.label(settings[position], down).replace(", ", "\n")
            pen.multiline_text((GAP_PX, y + CELL_PX // 2 - FONT_PX), label, "black", font, spacing=3)
        canvas.paste(fit(made.picture, CELL_PX), (left + column * (CELL_PX + GAP_PX), y))
    return canvas


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
