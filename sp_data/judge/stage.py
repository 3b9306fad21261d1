"""The judge's stage: draw one picture for each prompt, measure its coat and hat, and count the right ones.

Half of the prompts ask for one of the eight pairs of coat and hat that no picture of the wiki shows: right answers to
these were not memorised. The demo's CLIP gives a second opinion, zero-shot.
"""

from __future__ import annotations

import io
import itertools
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sp_data.demo.kids.kid import COLOURS, HAT_KINDS, HELD_OUT, PAIRS, PLACES
from sp_data.errors import StageError, UsageError
from sp_data.judge import colours
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts
from sp_data.recipe import Recipe
from sp_data.runtime.progress import Progress
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions
from sp_data.training.trained import best_folders

log = logging.getLogger(__name__)

STAGE = "judge"
OPINION_PROMPTS = {"coat": "a kid in a {} coat", "hat": "a kid with a {} hat"}


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its colours, and whether the wiki has pictures of this pair of coat and hat."""

    prompt: str
    coat: str
    hat: str
    seen: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The colours that one picture shows."""

    question: Question
    read: colours.CoatAndHat
    opinion: colours.CoatAndHat
    """The CLIP's opinion."""
    picture: str
    """Path of the PNG in the lake."""


def questions(num_prompts: int, seed: int) -> list[Question]:
    """Distinct prompts: every second one asks for a held-out pair, in turn; the others for a random pair."""
    draw = random.Random(f"questions {seed}")
    held_out, seen_pairs = itertools.cycle(sorted(HELD_OUT)), sorted(PAIRS)
    by_prompt: dict[str, Question] = {}
    num_tries = 0
    while len(by_prompt) < num_prompts:
        is_seen = len(by_prompt) % 2 == 0
        coat, hat = draw.choice(seen_pairs) if is_seen else next(held_out)
        prompt = f"a kid in a {coat} coat and a {hat} {draw.choice(HAT_KINDS)} at the {draw.choice(PLACES)}"
        by_prompt.setdefault(prompt, Question(prompt, coat, hat, is_seen))
        num_tries += 1
        if num_tries > 20 * num_prompts:
            raise StageError(f"judge.num_prompts = {num_prompts}: there are not so many different prompts; lower it")
    return list(by_prompt.values())


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields of the recipe that decide which pictures the judge sees."""
    if recipe.judge is None:
        return {}
    steps = {"prior_steps": recipe.prior.sample_timesteps, "decoder_steps": recipe.decoder.sample_timesteps}
    return {**recipe.judge.identity_fields(), **steps}


def judge(run: StageRun) -> StageResult:
    """Draw each question once, with seeds that count up from the recipe's, and judge the pictures.

    Raises StageError if the recipe has no judge.
    """
    if run.recipe.judge is None:
        raise StageError(f"recipe {run.recipe.name!r} has no judge: only the demo's pictures can be measured")
    return run.once(lambda: _judge(run), part=STAGE)


def _judge(run: StageRun) -> StageOutput:
    settings = run.recipe.judge
    assert settings is not None
    all_questions = questions(settings.num_prompts, settings.seed)
    run.progress.begin(STAGE, len(all_questions), "pictures")
    checkpoint_folders = [*best_folders(run.inputs["prior"]), *best_folders(run.inputs["decoder"])]
    verdicts, files = _draw_and_read(
        all_questions, run.recipe, run.lake, run.identity, checkpoint_folders, run.progress
    )
    table = {
        "all": score(verdicts),
        "seen": score([verdict for verdict in verdicts if verdict.question.seen]),
        "unseen": score([verdict for verdict in verdicts if not verdict.question.seen]),
    }
    return StageOutput(
        counts=Counts(in_=len(all_questions), out=len(all_questions)),
        files=files,
        summary="; ".join(_line(name, scores) for name, scores in table.items()),
        details={"chance": colours.CHANCE, "table": table, "verdicts": [_row(verdict) for verdict in verdicts]},
        versions=library_versions("dalle2-pytorch", "torch", "pillow"),
    )


def _draw_and_read(
    questions: Sequence[Question],
    recipe: Recipe,
    lake: Lake,
    identity: str,
    checkpoint_folders: list[str],
    progress: Progress,
) -> tuple[list[Verdict], list[FileEntry]]:
    from sp_data.runtime.threads import import_torch

    import_torch()
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.models import load_models

    models = load_models(recipe, lake, checkpoint_folders)
    # In one precision: equal weights are judged by equal pictures.
    generator = ImageGenerator(models, "fp32")
    # A seed for each question: the same noise for all would be a single draw.
    seed = recipe.judge.seed if recipe.judge else 0
    readings, pictures, files = [], [], []
    prompts = [(question.prompt, seed + number) for number, question in enumerate(questions)]
    for made in generator.dream_seeds(prompts):
        path = f"generated/judge-{identity[:8]}/{made.file_name}"
        files.append(lake.write_bytes(path, made.png()))
        readings.append(colours.read(made.picture))
        pictures.append(made.picture)
        progress.advance()
    opinions = second_opinion(models.clip, pictures)
    rows = zip(questions, readings, opinions, files, strict=True)
    return [Verdict(question, reading, opinion, entry.path) for question, reading, opinion, entry in rows], files


def judge_folder(folder: Path) -> dict[str, dict[str, float | int]]:
    """Judge the PNGs of `sp-data dream` in a folder by their own prompts; prompts without coat and hat are left out.

    Raises UsageError if there is none to judge, CorruptFile if a PNG does not record how it was made.
    """
    from sp_data.generation.picture import read_origin

    if not folder.is_dir():
        raise UsageError(f"--pictures {folder}: there is no such folder")
    rows: list[tuple[colours.CoatAndHat, colours.CoatAndHat]] = []
    for path in sorted(folder.glob("*.png")):
        data = path.read_bytes()
        requested = colours.colours_of_prompt(read_origin(data, str(path))["prompt"])
        if requested.coat and requested.hat:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
                rows.append((requested, colours.read(picture)))
    if not rows:
        raise UsageError(f"{folder} has no PNG of `sp-data dream` whose prompt names the colours of a coat and a hat")

    def share(chosen: list[tuple[colours.CoatAndHat, colours.CoatAndHat]]) -> dict[str, float | int]:
        count = len(chosen)
        return {
            "n": count,
            "coat": round(sum(requested.coat == read.coat for requested, read in chosen) / count, 4) if count else 0.0,
            "hat": round(sum(requested.hat == read.hat for requested, read in chosen) / count, 4) if count else 0.0,
        }

    unseen = [row for row in rows if (row[0].coat, row[0].hat) in HELD_OUT]
    return {"all": share(rows), "seen": share([row for row in rows if row not in unseen]), "unseen": share(unseen)}


def second_opinion(clip: Any, pictures: Sequence[Image.Image]) -> list[colours.CoatAndHat]:
    """The colours that the CLIP sees, zero-shot: the colour whose sentence is nearest."""
    names = list(COLOURS)
    images, _ = clip.embed(list(pictures), ["a kid"] * len(pictures))
    nearest = {
        part: (images @ clip.embed_captions([prompt.format(name) for name in names]).T).argmax(axis=1)
        for part, prompt in OPINION_PROMPTS.items()
    }
    return [
        colours.CoatAndHat(coat=names[int(coat)], hat=names[int(hat)])
        for coat, hat in zip(nearest["coat"], nearest["hat"], strict=True)
    ]


def score(verdicts: Sequence[Verdict]) -> dict[str, float | int]:
    """The number of pictures, and the shares (0..1) with the right coat and hat, by the pixels and by the CLIP."""
    count = len(verdicts)

    def share(right: int) -> float:
        return round(right / count, 4) if count else 0.0

    return {
        "n": count,
        "coat": share(sum(verdict.read.coat == verdict.question.coat for verdict in verdicts)),
        "hat": share(sum(verdict.read.hat == verdict.question.hat for verdict in verdicts)),
        "clip_coat": share(sum(verdict.opinion.coat == verdict.question.coat for verdict in verdicts)),
        "clip_hat": share(sum(verdict.opinion.hat == verdict.question.hat for verdict in verdicts)),
    }


def _line(name: str, scores: dict[str, float | int]) -> str:
    return f"{name}: {scores['n']} pictures, coat {scores['coat']:.1%}, hat {scores['hat']:.1%}"


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        "prompt": verdict.question.prompt,
        "seen": verdict.question.seen,
        "asked": [verdict.question.coat, verdict.question.hat],
        "read": [verdict.read.coat, verdict.read.hat],
        "clip": [verdict.opinion.coat, verdict.opinion.hat],
        "picture": verdict.picture,
    }
