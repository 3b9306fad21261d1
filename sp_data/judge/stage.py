"""The judge's stage: ask for kids in words, look at the first picture of each, and count.

Half of the prompts are of the eight pairs of coat and hat that no picture of the wiki shows: what is right there was
not remembered. The demo's CLIP gives a second opinion, zero-shot.
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

log = logging.getLogger(__name__)

STAGE = "judge"
OPINION_PROMPTS = {"coat": "a kid in a {} coat", "hat": "a kid with a {} hat"}


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt in words only, and whether the wiki has pictures of its pair of coat and hat."""

    prompt: str
    coat: str
    hat: str
    seen: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one picture shows."""

    question: Question
    read: colours.CoatAndHat
    opinion: colours.CoatAndHat
    """The CLIP's."""
    picture: str
    """Path in the lake."""


def questions(num_prompts: int, seed: int) -> list[Question]:
    """Every second one of a held-out pair, those in turn; the rest of the pairs at random."""
    draw = random.Random(f"questions {seed}")
    held_out, seen = itertools.cycle(sorted(HELD_OUT)), sorted(PAIRS)
    asked: dict[str, Question] = {}
    number = 0
    while len(asked) < num_prompts:
        is_seen = len(asked) % 2 == 0
        coat, hat = draw.choice(seen) if is_seen else next(held_out)
        prompt = f"a kid in a {coat} coat and a {hat} {draw.choice(HAT_KINDS)} at the {draw.choice(PLACES)}"
        asked.setdefault(prompt, Question(prompt, coat, hat, is_seen))
        number += 1
        if number > 20 * num_prompts:
            raise StageError(f"judge.num_prompts = {num_prompts}: there are not so many different kids to ask for")
    return list(asked.values())


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides which pictures the judge sees."""
    if recipe.judge is None:
        return {}
    steps = {"prior_steps": recipe.prior.sample_timesteps, "decoder_steps": recipe.decoder.sample_timesteps}
    return {**recipe.judge.identity_fields(), **steps}


def judge(run: StageRun) -> StageResult:
    """Dream each question once, with seeds that count up from the recipe's, and read the pictures.

    Raises StageError if the recipe has no judge.
    """
    if run.recipe.judge is None:
        raise StageError(f"recipe {run.recipe.name!r} has no judge: only the demo's pictures can be measured")
    return run.once(lambda: _judge(run), part=STAGE)


def _judge(run: StageRun) -> StageOutput:
    settings = run.recipe.judge
    assert settings is not None
    asked = questions(settings.num_prompts, settings.seed)
    run.progress.begin(STAGE, len(asked), "pictures")
    named = [str(run.inputs[model].details["best"]["folder"]) for model in ("prior", "decoder")]
    verdicts, files = _sit(asked, run.recipe, run.lake, run.identity, named, run.progress)
    table = {
        "all": score(verdicts),
        "seen": score([verdict for verdict in verdicts if verdict.question.seen]),
        "unseen": score([verdict for verdict in verdicts if not verdict.question.seen]),
    }
    for name, line in table.items():
        log.info("judge: %s: %d pictures, coat %.1f %%, hat %.1f %%", name, line["n"], *_percent(line))
    return StageOutput(
        counts=Counts(in_=len(asked), out=len(asked)),
        files=files,
        details={"chance": colours.CHANCE, "table": table, "verdicts": [_row(verdict) for verdict in verdicts]},
        versions=library_versions("dalle2-pytorch", "torch", "pillow"),
    )


def _sit(
    asked: Sequence[Question], recipe: Recipe, lake: Lake, identity: str, named: list[str], progress: Progress
) -> tuple[list[Verdict], list[FileEntry]]:
    from sp_data.generation.dream import Order, dream
    from sp_data.generation.models import load_models

    models = load_models(recipe, lake, named)
    # A seed of its own for each: one lucky noise for all would be one draw, not so many.
    seed = recipe.judge.seed if recipe.judge else 0
    read, pictures, files = [], [], []
    for dreamt in dream(models, [Order(question.prompt, seed + number) for number, question in enumerate(asked)]):
        path = f"generated/judge-{identity[:8]}/{dreamt.file_name}"
        files.append(lake.write_bytes(path, dreamt.png()))
        read.append(colours.read(dreamt.picture))
        pictures.append(dreamt.picture)
        progress.advance()
    opinions = second_opinion(models.clip, pictures)
    rows = zip(asked, read, opinions, files, strict=True)
    return [Verdict(question, reading, opinion, entry.path) for question, reading, opinion, entry in rows], files


def judge_folder(folder: Path) -> dict[str, dict[str, float | int]]:
    """Read the PNGs that `sp-data dream` made against the prompts inside them; what names no coat and hat is left out.

    Raises UsageError if there is none to judge, CorruptFile if a PNG does not say how it was made.
    """
    from sp_data.generation.dream import read_made

    rows: list[tuple[colours.CoatAndHat, colours.CoatAndHat]] = []
    for path in sorted(folder.glob("*.png")):
        data = path.read_bytes()
        asked = colours.asked(read_made(data, str(path))["prompt"])
        if asked.coat and asked.hat:
            with Image.open(io.BytesIO(data)) as picture:
                rows.append((asked, colours.read(picture)))
    if not rows:
        raise UsageError(f"{folder} holds no PNG of `sp-data dream` whose prompt names a coat's and a hat's colour")

    def share(chosen: list[tuple[colours.CoatAndHat, colours.CoatAndHat]]) -> dict[str, float | int]:
        count = len(chosen)
        return {
            "n": count,
            "coat": round(sum(asked.coat == read.coat for asked, read in chosen) / count, 4) if count else 0.0,
            "hat": round(sum(asked.hat == read.hat for asked, read in chosen) / count, 4) if count else 0.0,
        }

    unseen = [row for row in rows if (row[0].coat, row[0].hat) in HELD_OUT]
    return {"all": share(rows), "seen": share([row for row in rows if row not in unseen]), "unseen": share(unseen)}


def second_opinion(clip: Any, pictures: Sequence[Image.Image]) -> list[colours.CoatAndHat]:
    """What the CLIP sees, zero-shot: the colour whose sentence lies nearest."""
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
    """How many, and the shares (0..1) with the right coat and hat, by their pixels and by the CLIP."""
    count = len(verdicts)

    def share(right: int) -> float:
        return round(right / count, 4) if count else 0.0

    return {
        "n": count,
        "coat": share(sum(one.read.coat == one.question.coat for one in verdicts)),
        "hat": share(sum(one.read.hat == one.question.hat for one in verdicts)),
        "clip_coat": share(sum(one.opinion.coat == one.question.coat for one in verdicts)),
        "clip_hat": share(sum(one.opinion.hat == one.question.hat for one in verdicts)),
    }


def _percent(line: dict[str, float | int]) -> tuple[float, float]:
    return 100 * line["coat"], 100 * line["hat"]


def _row(one: Verdict) -> dict[str, Any]:
    return {
        "prompt": one.question.prompt,
        "seen": one.question.seen,
        "asked": [one.question.coat, one.question.hat],
        "read": [one.read.coat, one.read.hat],
        "clip": [one.opinion.coat, one.opinion.hat],
        "picture": one.picture,
    }
