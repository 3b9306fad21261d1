"""Fields of the page that take whatever a visitor's browser sends."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio import component_meta
from gradio.components import Component

from sp_data.errors import UsageError


@contextlib.contextmanager
def without_stubs() -> Iterator[None]:
    """Gradio writes a .pyi beside every class that is made of one of its components; not into this package."""
    write = component_meta.create_or_modify_pyi
    component_meta.create_or_modify_pyi = lambda *_: None
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = write


with without_stubs():

    class Slider(gr.Slider):
        """A slider that gives None for what is no number of its range: `number` says so in a sentence.

        A browser sends null where its field was emptied.
        """

        is_template = True

        def preprocess(self, payload: Any) -> float | None:  # type: ignore[override]
            if isinstance(payload, bool) or not isinstance(payload, (int, float)) or not math.isfinite(payload):
                return None
            return payload if self.minimum <= payload <= self.maximum else None


def number(values: dict[Component, Any], slider: gr.Slider) -> float:
    """The number of a slider. Raises UsageError if it has none."""
    value = values[slider]
    if not isinstance(value, (int, float)):
        raise UsageError(f"{slider.label}: expected a number from {slider.minimum:g} to {slider.maximum:g}")
    return value


def whole_number(values: dict[Component, Any], slider: gr.Slider) -> int:
    """The same, without what comes after the point."""
    return int(number(values, slider))
