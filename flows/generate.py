"""The generation flow: pictures from words and from pictures, by a dataset's best checkpoints or by chosen ones."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import State, flow
from prefect.states import Completed
from pydantic import BaseModel, Field

from flows.local_server import start_local_server
from flows.parameters import NO_CHANGES, RecipeName, chosen_recipe, in_one_sentence, run_name
from sp_data.generation.options import SamplingOptions
from tasks.limits import tag_run
from tasks.report import page_address
from tasks.summary import name_run


class SweepOver(BaseModel):
    """Every combination of these values is drawn, at one seed; an empty list: as set above."""

    prior_cond_scale: list[float] = Field([], description="For example 1, 2.5, 5")
    cond_scale: list[float] = Field([], description="For example 1, 3, 5")
    steps: list[int] = Field([], description="For example 8, 25")


@flow(flow_run_name=run_name)
@in_one_sentence
def generate(
    recipe: RecipeName = "demo",
    lake: str = "./lake",
    prompts: list[str] = [],
    variations_of: list[str] = [],
    num_pictures: Annotated[int, Field(ge=1, le=256)] = 4,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
    sampler: Literal["auto", "dpm++", "ddim", "ddpm"] = "auto",
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None,
    cond_scale: Annotated[float, Field(ge=0, le=100)] = 1.0,
    prior_cond_scale: Annotated[float, Field(ge=0, le=100)] = 1.0,
    negative_prompt: str = "",
    best_of: Annotated[int, Field(ge=1, le=256)] = 1,
    sweep: SweepOver = SweepOver(),
    checkpoint: list[str] = [],
    before_and_after: bool = False,
    page: str | None = None,
) -> State[list[str]]:
    """Make pictures; the result is the paths of the PNGs, and an artifact shows them.

    Args:
        recipe: A stock recipe, a dataset in the lake, or a file of the folder `recipes`.
        lake: Where the data lies: a folder of the worker or a URL.
        prompts: `num_pictures` are made of each. Without any, and without `variations_of`: the recipe's own
            `follow_up.prompts`, or else captions of the test split, which no training saw.
        variations_of: Paths of pictures, of each of which `num_pictures` variations are made.
        num_pictures: Pictures of each prompt and of each picture; a sweep makes one of each combination.
        seed: Of the first picture; the next have the next seeds.
        sampler: auto is dpm++, which needs the fewest steps.
        steps: Of the sampler; none: the recipe's.
        cond_scale: Guidance of the decoder; above 1 follows the image embedding more closely.
        prior_cond_scale: Guidance of the prior; above 1 follows the words more closely.
        negative_prompt: What the pictures should not show; needs guidance above 1.
        best_of: Draw so many of each and keep the one that CLIP likes best.
        sweep: Draw each prompt with every combination of some values, in place of `num_pictures`.
        checkpoint: `best`, `latest`, or folders of checkpoints; none: the best.
        before_and_after: Instead of all that: the recipe's own prompts, by the newest checkpoints and by those before.
        page: Address of `sp-data ui`, to which the artifact links; none: the worker's `SP_PAGE`; empty: no links.
    """
    chosen = chosen_recipe(recipe, lake, NO_CHANGES, [])
    tag_run(chosen.name)
    # It imports torch, which a deployment, that reads the parameters alone, need not wait for.
    from tasks import generate as drawing

    address = page_address() if page is None else page
    if before_and_after:
        drawn = drawing.before_and_after(chosen, lake, address)
        name_run(f"{chosen.name} · {len(drawn.pictures)} pictures, before and after")
        return Completed(message=f"{len(drawn.pictures)} pictures, {drawn.page}", data=list(drawn.pictures))
    options = SamplingOptions(
        sampler=None if sampler == "auto" else sampler,
        steps=steps,
        # None: 2 with a negative prompt, which would change nothing at 1.
        cond_scale=None if cond_scale == 1 else cond_scale,
        prior_cond_scale=prior_cond_scale,
        negative_prompt=negative_prompt,
        best_of=best_of,
    )
    paths = drawing.draw(
        chosen,
        lake,
        prompts=prompts,
        variations_of=variations_of,
        sweep_over={name: values for name, values in sweep.model_dump().items() if values},
        num_pictures=num_pictures,
        seed=seed,
        options=options,
        checkpoint=checkpoint,
        page=address,
    )
    name_run(f"{chosen.name} · {len(paths)} pictures")
    return Completed(message=f"{len(paths)} pictures", data=paths)


if __name__ == "__main__":
    start_local_server()
    generate()
