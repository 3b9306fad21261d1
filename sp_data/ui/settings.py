"""The settings below a drawing's words: how many, which seed, how it is sampled; each with a sentence on it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
from gradio.components import Component

from sp_data.errors import UsageError
from sp_data.ui.checkpoints import Abilities
from sp_data.ui.fields import Slider, number, whole_number

if TYPE_CHECKING:
    from sp_data.generation.models import Models
    from sp_data.generation.options import SamplingOptions

Tab = Literal["dream", "variation", "inpaint"]
MAX_PICTURES = 8
MAX_BEST_OF = 16
MAX_STEPS = 100
MAX_SEED = 2**53
MAX_NEW_SEED = 1_000_000
"""Short enough to be told to somebody."""
DECODER_SCALE = (
    "1 is none. From 1.5 to 3 it keeps closer to what the words or the picture mean, beyond that it coarsens."
)
UPSAMPLER_SCALE = "The scale that matters most: the upsampler adds the details. 1 is none; try 1.5 to 4."
PRIOR_SCALE = "Matters little. 1 is none; above it the words count more and the pictures differ less."
STEPS = "More take longer. dpm++ is good from 8 on; 12 to 25 are plenty."
ALL_STEPS = "ddpm takes all the steps that the decoder was trained with."
PRIOR_STEPS = "Of the network that turns words into what CLIP would see. They are quick."
SAMPLERS = {
    "dpm++ (needs the fewest steps)": "dpm++",
    "ddim (dalle2-pytorch’s own)": "ddim",
    "ddpm (as trained; slow)": "ddpm",
}
NO_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    tab: Tab
    go: gr.Button
    cancel: gr.Button
    num_pictures: gr.Slider
    seed: gr.Textbox
    negative: gr.Textbox
    decoder_scale: gr.Slider
    upsampler_scale: gr.Slider
    prior_scale: gr.Slider
    sampler: gr.Radio
    steps: gr.Slider
    prior_steps: gr.Slider
    best_of: gr.Slider
    resample_times: gr.Slider

    @property
    def inputs(self) -> set[Component]:
        """All of them."""
        return {*self.scales, self.num_pictures, self.seed, self.negative, self.sampler, *self._rest}

    @property
    def scales(self) -> tuple[Component, ...]:
        """Those that depend on the checkpoints, in the order of `updates`."""
        return self.decoder_scale, self.upsampler_scale, self.prior_scale

    @property
    def _rest(self) -> tuple[Component, ...]:
        return self.steps, self.prior_steps, self.best_of, self.resample_times

    def first_seed(self, values: dict[Component, Any]) -> int:
        """The one that was given, else any. Raises UsageError."""
        given = str(values[self.seed] or "").strip()
        if not given:
            return secrets.randbelow(MAX_NEW_SEED)
        if not (given.isascii() and given.isdigit()) or int(given) > MAX_SEED:
            raise UsageError(f"seed {given}: expected a whole number from 0 to {MAX_SEED}, or nothing")
        return int(given)

    def options(self, values: dict[Component, Any], models: Models) -> SamplingOptions:
        """For these models: a scale that they cannot be guided by is left at 1. Raises UsageError."""
        from sp_data.generation.options import SamplingOptions

        sampler = str(values[self.sampler])
        negative = str(values[self.negative] or "").strip()
        scales = (NO_SCALE,) * models.num_unets
        if models.guides_decoder or negative:
            others = (number(values, self.upsampler_scale),) * (models.num_unets - 1)
            scales = (number(values, self.decoder_scale), *others)
        return SamplingOptions(
            sampler=sampler,  # type: ignore[arg-type]  # checked there
            steps=None if sampler == "ddpm" else whole_number(values, self.steps),
            # Where all are 1, a negative prompt would change nothing: then it brings its own.
            cond_scale=None if set(scales) == {NO_SCALE} else scales,
            prior_cond_scale=number(values, self.prior_scale) if models.guides_prior else NO_SCALE,
            prior_steps=whole_number(values, self.prior_steps),
            negative_prompt=negative,
            best_of=whole_number(values, self.best_of),
            resample_times=whole_number(values, self.resample_times),
        )

    def updates(self, able: Abilities) -> list[Any]:
        """For `scales`: what the checkpoints cannot do is greyed out, with the reason."""
        several = able.num_unets > 1
        return [
            _scale_update(DECODER_SCALE, able.no_decoder_guidance),
            gr.update(**_scale(UPSAMPLER_SCALE, able.no_upsampler_guidance), visible=several),
            gr.update(**_scale(PRIOR_SCALE, able.no_prior_guidance), visible=self.tab != "variation"),
        ]


def settings(tab: Tab, able: Abilities, steps: int, prior_steps: int) -> Settings:
    """Build them where they are called. `steps`, `prior_steps`: those of the recipe."""
    with gr.Row(elem_classes="sp-pair"):
        num_pictures = Slider(
            1,
            MAX_PICTURES,
            value=2,
            step=1,
            label="Pictures of each" if tab == "dream" else "Pictures",
            elem_id=f"{tab}-pictures",
            buttons=[],
        )
        # A number's field would show 0 where it is empty.
        seed = gr.Textbox(label="Seed", placeholder="new each time", max_length=16, elem_id=f"{tab}-seed")
    with gr.Row(elem_classes="sp-go"):
        go = gr.Button("Draw", variant="primary", elem_id=f"{tab}-draw")
        cancel = gr.Button("Cancel", interactive=False, elem_id=f"{tab}-cancel")
    with gr.Accordion("Finer settings", open=False, elem_classes="sp-finer"):
        negative = gr.Textbox(
            label="What it should not show",
            placeholder="a blue coat",
            max_length=2_000,
            elem_id=f"{tab}-negative",
            info="Drawing leads away from these words; where guidance is 1, it takes 2 for that.",
        )
        decoder_scale = _slider(
            tab, "decoder-scale", "Guidance of the decoder", DECODER_SCALE, able.no_decoder_guidance
        )
        upsampler_scale = _slider(
            tab,
            "upsampler-scale",
            "Guidance of the upsampler",
            UPSAMPLER_SCALE,
            able.no_upsampler_guidance,
            visible=able.num_unets > 1,
        )
        prior_scale = _slider(
            tab,
            "prior-scale",
            "Guidance of the prior",
            PRIOR_SCALE,
            able.no_prior_guidance,
            visible=tab != "variation",
        )
        samplers = {label: name for label, name in SAMPLERS.items() if tab != "inpaint" or name != "dpm++"}
        sampler = gr.Radio(
            list(samplers.items()),
            value=next(iter(samplers.values())),
            label="Sampler",
            elem_id=f"{tab}-sampler",
            info="How noise becomes a picture."
            if tab != "inpaint"
            else "dpm++ cannot repeat a step, as inpainting does.",
        )
        most = min(MAX_STEPS, able.timesteps - 1)
        steps_slider = Slider(
            2, most, value=min(steps, most), step=1, label="Steps", info=STEPS, elem_id=f"{tab}-steps", buttons=[]
        )
        prior_most = min(MAX_STEPS, able.prior_timesteps)
        prior_steps_slider = Slider(
            2,
            prior_most,
            value=min(prior_steps, prior_most),
            step=1,
            label="Steps of the prior",
            info=PRIOR_STEPS,
            elem_id=f"{tab}-prior-steps",
            visible=tab != "variation",
            buttons=[],
        )
        best_of = Slider(
            1,
            MAX_BEST_OF,
            value=1,
            step=1,
            label="Best of",
            info="Draws so many of each and keeps the one that CLIP finds nearest to the words or the picture.",
            elem_id=f"{tab}-best-of",
            buttons=[],
        )
        resample_times = Slider(
            1,
            20,
            value=5,
            step=1,
            label="Repeats of a step",
            info="More let the new part fit the old one better, and take as many times longer.",
            elem_id=f"{tab}-repeats",
            visible=tab == "inpaint",
            buttons=[],
        )
    sampler.change(_steps_update, sampler, steps_slider, queue=False, show_progress="hidden", api_visibility="private")
    return Settings(
        tab=tab,
        go=go,
        cancel=cancel,
        num_pictures=num_pictures,
        seed=seed,
        negative=negative,
        decoder_scale=decoder_scale,
        upsampler_scale=upsampler_scale,
        prior_scale=prior_scale,
        sampler=sampler,
        steps=steps_slider,
        prior_steps=prior_steps_slider,
        best_of=best_of,
        resample_times=resample_times,
    )


def _slider(tab: str, name: str, label: str, info: str, reason: str, *, visible: bool = True) -> gr.Slider:
    return Slider(
        1,
        8,
        value=NO_SCALE,
        step=0.1,
        label=label,
        elem_id=f"{tab}-{name}",
        visible=visible,
        buttons=[],
        **_scale(info, reason),
    )


def _scale(info: str, reason: str) -> dict[str, Any]:
    return {"info": f"Not here: {reason}." if reason else info, "interactive": not reason}


def _scale_update(info: str, reason: str) -> Any:
    return gr.update(**_scale(info, reason))


def _steps_update(sampler: str) -> Any:
    is_whole = sampler == "ddpm"
    return gr.update(interactive=not is_whole, info=ALL_STEPS if is_whole else STEPS)
