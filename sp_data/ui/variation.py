"""The tab that draws what CLIP sees in a picture."""

from __future__ import annotations

import gradio as gr

from sp_data.errors import UsageError
from sp_data.ui.drawing import Job
from sp_data.ui.fields import whole_number
from sp_data.ui.pictures import READABLE, PictureInput, picture_input, uploaded
from sp_data.ui.settings import settings
from sp_data.ui.wiring import Page, Values, check_count, drawing_column, html, wire_drawing


def variation_tab(page: Page) -> PictureInput:
    """Returns the field of the picture, to which others may take one."""
    recipe = page.state.recipe
    with gr.Row(elem_classes="sp-columns"):
        with gr.Column(scale=2, min_width=320):
            picture = picture_input("A picture", "variation-picture", 260)
            prompt = gr.Textbox(
                label="Words",
                max_length=2_000,
                visible=page.able.reads_words,
                info="This decoder reads words beside the picture.",
                elem_id="variation-prompt",
            )
            own = settings("variation", page.able, recipe.decoder.sample_timesteps, recipe.prior.sample_timesteps)
            page.drawn_by.append(html("", "sp-drawn-by"))
        with gr.Column(scale=4, min_width=320, elem_id="variation-results"):
            outputs = drawing_column()
    page.settings.append(own)

    def job_of(values: Values) -> tuple[Job, list[str]]:
        if not values[picture]:
            raise UsageError(f"give a picture first: {READABLE.replace(' ', ', ')}")
        given = uploaded(values[picture])
        count, seed = whole_number(values, own.num_pictures), own.first_seed(values)
        check_count(count, own, values)
        prior, unets = page.chosen_from(values)
        words = str(values[prompt] or "").strip()
        job = Job(
            prior,
            unets,
            count,
            lambda generator, on_step: generator.variation(
                [given],
                prompt=words,
                num_pictures=count,
                seed=seed,
                options=own.options(values, generator.models),
                on_step=on_step,
            ),
        )
        return job, []

    wire_drawing(page, own, [own.go.click], outputs, {picture, prompt}, job_of)
    return picture
