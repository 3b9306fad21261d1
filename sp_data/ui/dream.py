"""The tab that draws from words."""

from __future__ import annotations

import gradio as gr

from sp_data import manifest as manifests
from sp_data.dataset.curate.tables import read_kept
from sp_data.errors import SpDataError, UsageError
from sp_data.lake import Lake
from sp_data.ui import markup
from sp_data.ui.drawing import Job
from sp_data.ui.fields import whole_number
from sp_data.ui.settings import settings
from sp_data.ui.wiring import Page, Values, check_count, drawing_column, html, wire_drawing

MAX_PROMPTS = 16
NUM_SUGGESTED = 3


def dream_tab(page: Page) -> None:
    recipe = page.state.recipe
    with gr.Row(elem_classes="sp-columns"):
        with gr.Column(scale=2, min_width=320):
            prompts = gr.Textbox(
                label="What to draw",
                lines=3,
                max_lines=8,
                max_length=20_000,
                elem_id="dream-prompts",
                placeholder="A line for each picture, such as: a kid in a red coat",
                info="Several lines are several prompts. Shift+Enter draws.",
            )
            html(markup.suggestions(suggested(page.state.lake), "dream-prompts"))
            own = settings("dream", page.able, recipe.decoder.sample_timesteps, recipe.prior.sample_timesteps)
            page.drawn_by.append(html("", "sp-drawn-by"))
        with gr.Column(scale=4, min_width=320, elem_id="dream-results"):
            outputs = drawing_column()
    page.settings.append(own)

    def job_of(values: Values) -> tuple[Job, list[str]]:
        from sp_data.generation.prompts import check_prompt, lost_words_sentence

        wanted = list(dict.fromkeys(line.strip() for line in str(values[prompts] or "").splitlines() if line.strip()))
        for prompt in wanted or [""]:
            check_prompt(prompt)
        if len(wanted) > MAX_PROMPTS:
            raise UsageError(f"{len(wanted)} prompts, at most {MAX_PROMPTS} at a time")
        each, seed = whole_number(values, own.num_pictures), own.first_seed(values)
        check_count(len(wanted) * each, own, values)
        prior, unets = page.chosen_from(values)
        job = Job(
            prior,
            unets,
            len(wanted) * each,
            lambda generator, on_step: generator.dream(
                wanted, num_pictures=each, seed=seed, options=own.options(values, generator.models), on_step=on_step
            ),
        )
        return job, [sentence for prompt in wanted if (sentence := lost_words_sentence(prompt))]

    wire_drawing(page, own, [own.go.click, prompts.submit], outputs, {prompts}, job_of)


def suggested(lake: Lake) -> list[str]:
    """A few captions of the dataset, of pictures that are not trained on where there are any."""
    curated = manifests.latest(lake, "curate")
    if curated is None:
        return []
    try:
        rows = read_kept(lake, curated, ["caption", "split"]).to_pylist()
    except (SpDataError, FileNotFoundError):
        return []
    held_out = [row["caption"] for row in rows if row["split"] != "train"]
    captions = list(dict.fromkeys(caption for caption in held_out or [row["caption"] for row in rows] if caption))
    return captions[:: max(1, len(captions) // NUM_SUGGESTED)][:NUM_SUGGESTED]
