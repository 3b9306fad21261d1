"""The tab that draws a part of a picture anew, under a mask that is painted with the mouse or given as a picture."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from sp_data.errors import SpDataError, UsageError
from sp_data.ui import markup
from sp_data.ui.drawing import Job
from sp_data.ui.fields import Slider, number, whole_number
from sp_data.ui.pictures import (
    MAX_SOFT_PX,
    READABLE,
    PictureInput,
    mask_of,
    painted_layer,
    painter,
    picture_input,
    uploaded,
)
from sp_data.ui.settings import settings
from sp_data.ui.wiring import HIDDEN, Page, Values, check_count, drawing_column, html, wire_drawing


def inpaint_tab(page: Page) -> PictureInput:
    """Returns the field of the picture, to which others may take one."""
    recipe = page.state.recipe
    with gr.Row(elem_classes="sp-columns"):
        with gr.Column(scale=5, min_width=320):
            picture = picture_input("1. A picture", "inpaint-picture", 170)
            canvas = html("", "sp-canvas-box")
            painted = gr.Textbox(visible="hidden", elem_id="inpaint-painted")
            with gr.Accordion("A mask from a file", open=False, elem_classes="sp-finer"):
                mask = picture_input("Mask: white is drawn anew, black stays", "inpaint-mask", 160)
            prompt = gr.Textbox(
                label="3. What the whole picture shall show",
                placeholder="a kid in a red coat",
                max_length=2_000,
                elem_id="inpaint-prompt",
                info="Not the painted part alone: the models look at all of it.",
            )
            soft = Slider(
                0,
                MAX_SOFT_PX,
                value=0,
                step=1,
                label="Soft edge",
                info="Pixels of the picture over which the new part fades in, within what is painted.",
                elem_id="inpaint-soft",
                buttons=[],
            )
            own = settings("inpaint", page.able, recipe.decoder.sample_timesteps, recipe.prior.sample_timesteps)
            page.drawn_by.append(html("", "sp-drawn-by"))
        with gr.Column(scale=7, min_width=320, elem_id="inpaint-results"):
            outputs = drawing_column()
    page.settings.append(own)

    def laid_out(path: str | None) -> str:
        """The picture to be painted on, or why it cannot be."""
        if not path:
            return ""
        try:
            return painter(uploaded(path))
        except SpDataError as error:
            return markup.notice(str(error), "bad")

    picture.change(laid_out, picture, canvas, **HIDDEN)

    def job_of(values: Values) -> tuple[Job, list[str]]:
        from sp_data.generation.inputs import read_mask, repainting
        from sp_data.generation.prompts import check_prompt, lost_words_sentence

        if not values[picture]:
            raise UsageError(f"give a picture first: {READABLE.replace(' ', ', ')}")
        given = uploaded(values[picture])
        if values[mask]:
            uploaded(values[mask])
            part = repainting(given, read_mask(Path(values[mask])))
        elif (layer := painted_layer(str(values[painted] or ""))) is not None:
            part = repainting(given, mask_of(layer, given, number(values, soft)))
        else:
            raise UsageError("nothing is painted: paint over the part of the picture that is to be drawn anew")
        words = str(values[prompt] or "").strip()
        check_prompt(words)
        count, seed = whole_number(values, own.num_pictures), own.first_seed(values)
        check_count(count, own, values)
        prior, unets = page.chosen_from(values)
        job = Job(
            prior,
            unets,
            count,
            lambda generator, on_step: generator.inpaint(
                [part],
                [words],
                num_pictures=count,
                seed=seed,
                options=own.options(values, generator.models),
                on_step=on_step,
            ),
        )
        return job, [sentence] if (sentence := lost_words_sentence(words)) else []

    wire_drawing(page, own, [own.go.click, prompt.submit], outputs, {picture, painted, mask, prompt, soft}, job_of)
    return picture
