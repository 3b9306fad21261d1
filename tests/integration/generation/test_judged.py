"""What the demo's models draw, measured by its judge: colours asked for, kept, repainted and passed through.

In a lake with the trained demo: that of SP_DATA_DEMO_LAKE (the folder that holds `demo`), else one that is trained here
as by `make demo`, which takes ten minutes. Sheets of what was drawn are left in the test's temporary folder, or in
SP_DATA_SHEETS.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from sp_data import manifest as manifests
from sp_data.dataset.shards.tars import read_tar
from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import COLOURS, HELD_OUT, Kid, caption, kids
from sp_data.generation.files import sheet
from sp_data.generation.generator import ImageGenerator
from sp_data.generation.inputs import InputPicture, Repainting, repainting
from sp_data.generation.models import load_models
from sp_data.generation.picture import GeneratedPicture
from sp_data.judge import colours
from sp_data.judge.stage import questions
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import demo

pytestmark = pytest.mark.proof

Mask = npt.NDArray[np.bool_]
Show = Callable[[str, Sequence[tuple[Image.Image, str]]], None]
"""Write pictures and their labels as a sheet of this name, in rows of eight."""
BRUSH_PX = 6
"""How far a person paints beyond a coat's edge, of 256."""
UNSEEN_SEED = 77
"""Of kids that no wiki of the demo has."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    if given := os.environ.get("SP_DATA_DEMO_LAKE"):
        return Lake(given, "demo")
    trained = Lake(str(tmp_path_factory.mktemp("demo")), "demo")
    for stage in (*DATASET_STAGES, "prior", "decoder"):
        run_stage(stage, demo(), trained)
    return trained


@pytest.fixture(scope="module")
def generator(lake: Lake) -> ImageGenerator:
    return ImageGenerator(load_models(demo(), lake), "fp32")


@pytest.fixture
def show(tmp_path: Path) -> Show:
    folder = Path(os.environ.get("SP_DATA_SHEETS", tmp_path))

    def write(name: str, labelled: Sequence[tuple[Image.Image, str]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pictures, labels = zip(*labelled, strict=True)
        sheet(pictures, labels, 8).save(folder / f"{name}.png")

    return write


def share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def test_a_dream_shows_the_coat_and_the_hat_it_was_asked_for(generator: ImageGenerator, show: Show) -> None:
    asked = questions(128, seed=1)
    made = list(generator.dream_seeds([(question.prompt, number) for number, question in enumerate(asked)]))
    show("dream", [(drawn.picture, drawn.prompt) for drawn in made[:64]])
    seen = [colours.read(drawn.picture) for drawn in made]
    assert share([read.coat == question.coat for read, question in zip(seen, asked, strict=True)]) >= 0.98
    assert share([read.hat == question.hat for read, question in zip(seen, asked, strict=True)]) >= 0.98


def held_out(lake: Lake) -> list[InputPicture]:
    """The pictures of the dataset that nothing was trained on."""
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    pictures = []
    for shard in verified.details["shards"]:
        if shard["split"] != "train":
            with lake.local(shard["tar"]["path"]) as tar:
                for key, parts in read_tar(tar):
                    pictures.append(InputPicture.of_image(Image.open(io.BytesIO(parts["jpg"])), key))
    return pictures


def test_a_variation_of_a_real_kid_keeps_coat_and_hat(generator: ImageGenerator, lake: Lake, show: Show) -> None:
    pictures = held_out(lake)
    assert len(pictures) >= 100
    made = list(generator.variation(pictures, seed=3))
    pairs = list(zip(pictures, made, strict=True))
    show("variation", [each for real, drawn in pairs[:32] for each in ((real.image, "real"), (drawn.picture, "drawn"))])
    before = [colours.read(picture.image) for picture in pictures]
    after = [colours.read(drawn.picture) for drawn in made]
    assert all(read.coat and read.hat for read in before)
    assert share([one.coat == other.coat for one, other in zip(before, after, strict=True)]) >= 0.95
    assert share([one.hat == other.hat for one, other in zip(before, after, strict=True)]) >= 0.95


def region(kid: Kid, part: str) -> Mask:
    """Where the kid's picture shows its coat or its hat: what changes with the colour of that."""
    pairs = [(kid.coat, colour) if part == "hat" else (colour, kid.hat) for colour in COLOURS]
    coat, hat = next(pair for pair in pairs if pair not in HELD_OUT and pair != (kid.coat, kid.hat))
    one, other = (np.asarray(draw(each)) for each in (kid, dataclasses.replace(kid, coat=coat, hat=hat)))
    changed: Mask = (one != other).any(axis=2)
    return changed


def coat_to_repaint(kid: Kid) -> tuple[Repainting, Mask]:
    """A kid with its coat painted white by a broad brush that spares the hat; and the mask, True = repaint."""
    grown = Image.fromarray(region(kid, "coat")).convert("L").filter(ImageFilter.MaxFilter(2 * BRUSH_PX + 1))
    mask = (np.asarray(grown) > 0) & ~region(kid, "hat")
    return repainting(InputPicture.of_image(draw(kid), kid.name), Image.fromarray(mask)), mask


def test_inpainting_the_coat_turns_it_red_and_leaves_the_hat_as_it_was(generator: ImageGenerator, show: Show) -> None:
    others = [kid for kid in kids(64, UNSEEN_SEED) if kid.coat != "red"][:48]
    drawn: list[tuple[Kid, Image.Image, GeneratedPicture, Mask]] = []
    for number, kid in enumerate(others):
        painted, mask = coat_to_repaint(kid)
        prompt = caption(kid).replace(f"{kid.coat} coat", "red coat")
        (made,) = generator.inpaint([painted], [prompt], seed=number)
        drawn.append((kid, painted.picture.image, made, mask))
    labelled = [[(before, f"{kid.coat} coat"), (made.picture, made.prompt)] for kid, before, made, _ in drawn]
    show("inpaint", [each for row in labelled[:32] for each in row])
    reads = [colours.read(made.picture) for _, _, made, _ in drawn]
    assert share([read.coat == "red" for read in reads]) >= 0.9
    assert share([read.hat == kid.hat for read, (kid, *_) in zip(reads, drawn, strict=True)]) >= 0.98
    for kid, before, made, mask in drawn:
        pixels, after = np.asarray(before), np.asarray(made.picture)
        assert np.array_equal(pixels[~mask], after[~mask])
        assert np.array_equal(pixels[region(kid, "hat")], after[region(kid, "hat")])
        assert not np.array_equal(pixels[mask], after[mask])


def coat_pairs(count: int) -> list[tuple[str, str, str]]:
    """Two coats and the hat that goes with both."""
    dice, pairs = random.Random("pairs of coats"), dict[tuple[str, str, str], None]()
    while len(pairs) < count:
        (first, last), hat = dice.sample(tuple(COLOURS), 2), dice.choice(tuple(COLOURS))
        if not {(first, hat), (last, hat)} & HELD_OUT:
            pairs[first, last, hat] = None
    return list(pairs)


def test_an_interpolation_passes_from_one_coat_to_the_other_under_the_same_hat(
    generator: ImageGenerator, show: Show
) -> None:
    pairs, rows, passes, hats = coat_pairs(16), list[tuple[Image.Image, str]](), list[bool](), list[bool]()
    for first, last, hat in pairs:
        ends = (f"a kid in a {coat} coat and a {hat} beanie at the lake" for coat in (first, last))
        made = list(generator.interpolate(*ends, num_pictures=8, seed=4))
        reads = [colours.read(drawn.picture) for drawn in made]
        coats = [read.coat for read in reads]
        rows += [(drawn.picture, f"{first} to {last}: {coat}") for drawn, coat in zip(made, coats, strict=True)]
        hats += [read.hat == hat for read in reads]
        # Between them any colour of the way; once there is the last coat, the first does not come back.
        arrived = coats.index(last) if last in coats else len(coats)
        passes.append(coats[:2] == [first] * 2 and coats[-2:] == [last] * 2 and first not in coats[arrived:])
    show("interpolate", rows)
    assert share(passes) >= 0.9
    assert share(hats) >= 0.95
