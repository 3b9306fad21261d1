"""The same prompts and seeds before and after a fine-tuning, side by side on one page.

reports/before-after-3f2a….html
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from sp_data import manifest as manifests
from sp_data.errors import StageNotDone
from sp_data.generation.files import PictureFolder
from sp_data.generation.gallery import unseen_captions
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.models import load_models
from sp_data.generation.picture import GeneratedPicture
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.runtime.contact_sheet import data_uri, jpeg
from sp_data.runtime.progress import SILENT, Progress
from sp_data.training.trained import RECORD, best_folders

log = logging.getLogger(__name__)

NUM_PROMPTS = 8
"""Captions that are drawn where the recipe names no prompts."""


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """What was drawn, and the page that shows it."""

    prompts: tuple[str, ...]
    before: tuple[GeneratedPicture, ...]
    """By the checkpoints of the fine-tuning before; empty if there are none any more."""
    after: tuple[GeneratedPicture, ...]
    page: str
    """Path in the lake."""
    paths: tuple[str, ...]
    """Where the PNGs lie, those of `before` first."""


def draw_before_and_after(recipe: Recipe, lake: Lake, progress: Progress = SILENT) -> BeforeAfter:
    """Draw the recipe's fixed prompts by the newest checkpoints, and by those before them, and publish the page.

    Raises StageNotDone if no decoder is trained.
    """
    newest, verified = manifests.latest(lake, "decoder"), manifests.latest(lake, "verify")
    if newest is None or verified is None:
        raise StageNotDone(f"dataset {lake.dataset!r} has no trained decoder; run {lake.command('run')} first")
    follow_up = recipe.follow_up
    prompts = fixed_prompts(recipe, verified, lake)
    earlier = _checkpoints_before(lake, newest)
    progress.begin("generate", len(prompts) * follow_up.num_pictures * (2 if earlier else 1), "pictures")
    folder, paths = PictureFolder(lake), []

    def draw(checkpoints: list[str] | None) -> tuple[GeneratedPicture, ...]:
        generator = ImageGenerator(load_models(recipe, lake, checkpoints))
        pictures = []
        for written in folder.write_each(
            generator.dream(prompts, num_pictures=follow_up.num_pictures, seed=follow_up.seed)
        ):
            pictures.append(written.made)
            paths.append(written.path)
            progress.advance()
        return tuple(pictures)

    before = draw(earlier) if earlier else ()
    after = draw(None)
    if not earlier:
        log.info("nothing to compare with: the checkpoints of an earlier fine-tuning are not there")
    page = _write_page(lake, prompts, before, after)
    return BeforeAfter(prompts, before, after, page, tuple(paths))


def fixed_prompts(recipe: Recipe, verified: Manifest, lake: Lake) -> tuple[str, ...]:
    """The recipe's own prompts, else captions of the dataset that were not trained on."""
    return recipe.follow_up.prompts or tuple(unseen_captions(verified, lake)[:NUM_PROMPTS])


def _checkpoints_before(lake: Lake, newest: Manifest) -> list[str]:
    """Folders of the checkpoints that generated before the newest fine-tuning; empty if any of them is gone."""
    decoder = manifests.load(lake, "decoder", newest.previous) if newest.previous else None
    if decoder is None:
        return []
    priors = [prior for prior in manifests.all_of(lake, "prior") if prior.inputs == decoder.inputs]
    if not priors:
        return []
    folders = [*best_folders(max(priors, key=lambda prior: prior.made_at)), *best_folders(decoder)]
    return folders if all(lake.exists(f"{one}/{RECORD}") for one in folders) else []


def _write_page(
    lake: Lake, prompts: Sequence[str], before: Sequence[GeneratedPicture], after: Sequence[GeneratedPicture]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sp_data.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    earlier = {(made.prompt, made.seed): made for made in before}
    rows = [
        (prompt, [(earlier.get((made.prompt, made.seed)), made) for made in after if made.prompt == prompt])
        for prompt in prompts
    ]
    html = environment.get_template("before_after.html.j2").render(
        dataset=lake.dataset, rows=rows, has_before=bool(before), uri=lambda made: data_uri(jpeg(made.picture, 88))
    )
    digest = hashlib.sha256("\n".join(made.file_name for made in (*before, *after)).encode()).hexdigest()
    path = f"reports/before-after-{digest[:16]}.html"
    lake.write_bytes(path, html.encode("utf-8"))
    return path
