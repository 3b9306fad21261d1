"""Pictures as a Prefect task: dreams, variations and sweeps, shown in an artifact."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sp_data import manifest as manifests
from sp_data.errors import UsageError
from sp_data.generation.files import PictureFolder, WrittenPicture
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.inputs import read_picture
from sp_data.generation.models import load_models
from sp_data.generation.options import SamplingOptions
from sp_data.generation.picture import GeneratedPicture
from sp_data.generation.prompts import check_prompt, lost_words_sentence
from sp_data.generation.sweep import Sweep, sweep
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.report.before_after import draw_before_and_after, fixed_prompts
from sp_data.report.markdown import before_after_markdown, pictures_markdown
from sp_data.runtime.progress import onlooker
from tasks.follow_up import note_drawn
from tasks.reference import BeforeAfterReference
from tasks.stage import artifact_key

log = logging.getLogger("sp_data.tasks")


@task(cache_policy=NO_CACHE)
def draw(
    recipe: Recipe,
    lake: str,
    *,
    prompts: list[str],
    variations_of: list[str],
    sweep_over: dict[str, list[float]],
    num_pictures: int,
    seed: int,
    options: SamplingOptions,
    checkpoint: list[str],
    page: str,
) -> list[str]:
    """Draw everything that was asked for with one loading of the models; returns the paths of the PNGs.

    Without prompts and `variations_of`: the dataset's own prompts, as before and after a fine-tuning.
    """
    dataset_lake = Lake(lake, recipe.name)
    if not prompts and not variations_of and (verified := manifests.latest(dataset_lake, "verify")):
        prompts = list(fixed_prompts(recipe, verified, dataset_lake))
    for prompt in prompts:
        check_prompt(prompt)
        if sentence := lost_words_sentence(prompt):
            log.warning("%s", sentence)
    if not prompts and not variations_of:
        raise UsageError(
            f"nothing to draw: dataset {recipe.name!r} has no captions; give prompts, or pictures in variations_of"
        )
    pictures = [read_picture(Path(path)) for path in variations_of]
    axes = Sweep({name: tuple(values) for name, values in sweep_over.items()}) if sweep_over else None
    generator = ImageGenerator(load_models(recipe, dataset_lake, checkpoint or None))

    def drawn() -> Iterator[GeneratedPicture]:
        if axes is None:
            yield from generator.dream(prompts, num_pictures=num_pictures, seed=seed, options=options)
        else:
            yield from itertools.chain.from_iterable(
                sweep(generator, prompt, axes, seed=seed, options=options) for prompt in dict.fromkeys(prompts)
            )
        yield from generator.variation(pictures, num_pictures=num_pictures, seed=seed, options=options)

    progress = onlooker()
    per_prompt = len(axes) if axes else num_pictures
    progress.begin("generate", len(dict.fromkeys(prompts)) * per_prompt + len(pictures) * num_pictures, "pictures")
    written: list[WrittenPicture] = []
    for entry in PictureFolder(dataset_lake).write_each(drawn()):
        written.append(entry)
        progress.advance()
    rows: list[tuple[str, dict[str, Any]]] = [(entry.path, entry.made.origin) for entry in written]
    create_markdown_artifact(
        key=artifact_key(recipe.name, "dreams"),
        markdown=pictures_markdown(dataset_lake, rows, page),
        description=f"{len(rows)} pictures of {len(prompts)} prompts and {len(pictures)} pictures",
    )
    return [path for path, _ in rows]


@task(cache_policy=NO_CACHE)
def before_and_after(recipe: Recipe, lake: str, page: str) -> BeforeAfterReference:
    """Draw the recipe's fixed prompts by the newest checkpoints and by those before them, side by side on a page."""
    dataset_lake = Lake(lake, recipe.name)
    newest = manifests.latest(dataset_lake, "decoder")
    drawn = draw_before_and_after(recipe, dataset_lake, onlooker())
    if newest is not None:
        note_drawn(dataset_lake, newest.digest)
    create_markdown_artifact(
        key=artifact_key(recipe.name, "before-after"),
        markdown=before_after_markdown(dataset_lake, drawn.prompts, drawn.before, drawn.after, drawn.page, page),
        description=f"{len(drawn.prompts)} prompts before and after the fine-tuning",
    )
    return BeforeAfterReference(page=drawn.page, pictures=drawn.paths, has_before=bool(drawn.before))
