"""The commands that draw: run in this process, whose imports are done, by the command's own entry point."""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sp_data.generation.generator as generator_module
from sp_data import manifest as manifests
from sp_data.cli.app import main
from sp_data.generation.picture import read_origin
from sp_data.lake import Lake
from sp_data.training import checkpoints

from .drawing import BLUE, RED, noise, pixels

QUICKLY = ["--steps", "2", "--prior-steps", "2"]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def paths(self) -> list[Path]:
        assert self.code == 0, self.err
        return [Path(line) for line in self.out.splitlines()]

    @property
    def sentences(self) -> list[str]:
        assert "Traceback" not in self.err
        return [line.removeprefix("sp-data: ") for line in self.err.splitlines() if line.startswith("sp-data: ")]


Command = Callable[..., Ended]


@pytest.fixture
def sp_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs sp-data with these arguments, and with these bytes piped in."""
    terminated = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path, piped: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["sp-data", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped), "utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def place(trained_lake: Lake, tmp_path: Path) -> list[str]:
    """Options to draw by the trained lake's models, into the folder `out`."""
    return ["--lake", str(Path(trained_lake.root).parent), "--out", str(tmp_path / "out"), "--precision", "fp32"]


@pytest.fixture
def of_lake(place: list[str]) -> list[str]:
    """The same, in few steps."""
    return [*place, *QUICKLY]


@pytest.fixture
def kid(tmp_path: Path) -> Path:
    noise(50, 40).save(tmp_path / "kid.png")
    return tmp_path / "kid.png"


def origin(path: Path) -> dict[str, object]:
    return read_origin(path.read_bytes(), path.name)


def test_dream_draws_each_prompt_and_says_so_as_json(sp_data: Command, of_lake: list[str]) -> None:
    ended = sp_data("dream", RED, "a samurai", RED, "-n", "2", "--seed", "3", *of_lake, "--json", "--sidecar")
    assert ended.code == 0, ended.err
    output = json.loads(ended.out)
    assert output["dataset"] == "demo"
    assert [(each["prompt"], each["seed"]) for each in output["pictures"]] == [
        (RED, 3),
        (RED, 4),
        ("a samurai", 3),
        ("a samurai", 4),
    ]
    for each in output["pictures"]:
        path = Path(each.pop("path"))
        scores = each.pop("scores")
        assert origin(path) == each
        assert json.loads(path.with_suffix(".json").read_bytes()) == {**each, "scores": scores}
    (sheet,) = output["sheets"]
    with Image.open(sheet) as opened:
        assert opened.size == (4 * 200 + 8, 245 + 8)


def test_prompts_of_a_file_are_drawn_into_the_lake(sp_data: Command, trained_copy: Lake, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf# two\na kid\r\n\na samurai\n")
    ended = sp_data("dream", "--prompts", tmp_path / "prompts.txt", "--lake", tmp_path / "lake", *QUICKLY, "--quiet")
    *pictures, sheet = ended.paths
    assert [origin(path)["prompt"] for path in pictures] == ["a kid", "a samurai"]
    assert {path.parent for path in (*pictures, sheet)} == {Path(trained_copy.full("generated"))}
    assert ended.err == ""


def test_prompts_that_are_piped_in_are_drawn_line_by_line_and_bad_ones_are_told(
    sp_data: Command, of_lake: list[str]
) -> None:
    too_long = b"a kid " * 5_000
    ended = sp_data("dream", *of_lake, piped=b"\xef\xbb\xbfa kid\n\n \nk\xefd\n" + too_long + b"\n" + b"a samurai")
    assert [origin(path)["prompt"] for path in ended.paths] == ["a kid", "a samurai"]
    first, second = ended.sentences
    assert "is not UTF-8; check the terminal's encoding" in first
    assert second.startswith("a prompt of 10,0")
    assert sp_data("dream", *of_lake).paths == [], "nothing was typed, nothing is drawn"


def test_a_field_of_the_kept_recipe_can_be_set_for_one_drawing(sp_data: Command, place: list[str]) -> None:
    ended = sp_data("dream", RED, *place, "--set", "decoder.sample_timesteps=3", "--set", "prior.sample_timesteps=4")
    (path,) = ended.paths
    drawn = origin(path)
    assert (drawn["steps"], drawn["prior_steps"]) == ([3, 3], 4)
    assert "decoder.sample_timesteps = 3 (was 8), for this command" in ended.sentences[0]


def test_words_that_clip_does_not_read_are_told(sp_data: Command, of_lake: list[str]) -> None:
    ended = sp_data("dream", "kid " * 76 + "hat", *of_lake)
    assert "CLIP reads 75 tokens; the last 2 words of the prompt are lost: “kid hat”" in ended.sentences
    assert len(ended.paths) == 1


def test_sweep_writes_a_grid_of_every_combination(sp_data: Command, place: list[str]) -> None:
    scales, steps = ("--decoder-cond-scale", "1,3"), ("--steps", "2,3", "--prior-steps", "2")
    ended = sp_data("sweep", RED, *scales, *steps, *place)
    *pictures, grid = ended.paths
    drawn = [origin(path) for path in pictures]
    assert [(each["steps"], each["cond_scale"]) for each in drawn] == [
        ([2, 2], [1.0, 1.0]),
        ([2, 2], [3.0, 1.0]),
        ([3, 3], [1.0, 1.0]),
        ([3, 3], [3.0, 1.0]),
    ]
    assert {each["seed"] for each in drawn} == {0}
    assert grid.name.startswith("sweep-a-kid-in-a-red-coat-")
    with Image.open(grid) as opened:
        assert opened.size == (132 + 2 * 200, 48 + 2 * 200)
        seen = np.asarray(opened.convert("L"))
    assert (seen[8:22, 8:132] < 100).any(), "the prompt stands above"
    assert (seen[24:46, 132:200] < 100).any(), "the guidance stands over its column"
    assert (seen[48:448, 8:100] < 100).any(), "the steps stand beside their row"


def test_variation_inpaint_interpolate_and_upscale_draw_of_a_persons_picture(
    sp_data: Command, of_lake: list[str], kid: Path, tmp_path: Path
) -> None:
    *varied, _ = sp_data("variation", kid, "-n", "2", *of_lake).paths
    assert [origin(path)["kind"] for path in varied] == ["variation"] * 2
    assert varied[0].name.startswith("variation-kid-seed-0-")

    mask = Image.new("L", (100, 80), 0)
    mask.paste(255, (0, 0, 50, 80))
    mask.save(tmp_path / "mask.png")
    (inpainted,) = sp_data("inpaint", kid, tmp_path / "mask.png", RED, *of_lake, "--resample-times", "1").paths
    with Image.open(inpainted) as opened, Image.open(kid) as before:
        assert opened.size == (50, 40)
        assert np.array_equal(pixels(opened)[:, 26:], pixels(before)[:, 26:])
        assert not np.array_equal(pixels(opened)[:, :24], pixels(before)[:, :24])

    *between, _ = sp_data("interpolate", kid, BLUE, "-n", "3", *of_lake).paths
    assert [origin(path)["position"] for path in between] == [0, 0.5, 1]
    assert origin(between[0])["prompt"] == f"kid.png → {BLUE}"

    (enlarged,) = sp_data("upscale", kid, *of_lake).paths
    with Image.open(enlarged) as opened:
        assert opened.size == (64, 64)
    assert len(list((tmp_path / "out").glob("*.png"))) == 7, "no name was used twice"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dream", " "], "an empty prompt: say what to draw"),
        (["dream", "--prompts", "none.txt"], "there is no file none.txt"),
        (["dream", RED, "--steps", "eight"], "--steps eight: expected a number, or numbers with commas between them"),
        (["dream", RED, "--sampler", "euler"], "sampler 'euler': expected one of dpm++, ddim, ddpm"),
        (["dream", RED, "--device", "tpu"], "--device tpu: expected auto, cpu or cuda"),
        (["dream", RED, "--precision", "fp8"], "--precision fp8: expected auto, fp32 or bf16"),
        (["dream", RED, "--steps", "1000"], "--steps 1000: expected 1 to 999"),
        (["dream", RED, "--compile", "--device", "cpu"], "--compile is for a GPU"),
        (["dream", RED, "--checkpoint", "runs/none"], "runs/none"),
        (["dream", RED, "--set", "decoder.colour=1"], "decoder.colour"),
        (["variation", "none.png"], "there is no picture none.png"),
        (["inpaint", "kid.png", "black.png", RED], "black.png is black all over"),
        (["inpaint", "kid.png", "long.png", RED], "long.png is 90 x 10, kid.png 50 x 40: expected equal proportions"),
        (["inpaint", "kid.png", "page.html", RED], "page.html cannot be read as a picture (not-an-image: a web page)"),
        (["interpolate", RED, "none.png"], "there is no picture none.png; a prompt has no such ending"),
        (["interpolate", RED, "a" * 11_000], "a prompt of 11,000 characters"),
        (["interpolate", RED, BLUE, "--best-of", "2"], "--best-of: the pictures of an interpolation belong together"),
        (["upscale", "kid.png", "--start-unet", "3"], "unet 3 cannot enlarge a picture: expected 2 to 2"),
        (["upscale", "kid.png", "--stop-unet", "1"], "unet 2 cannot enlarge a picture: --stop-unet 1 ends before it"),
        (["upscale", "kid.png", "--prior-cond-scale", "3"], "--prior-cond-scale: upscale begins with a picture"),
        (["variation", "kid.png", "--prior-cond-scale", "3"], "--prior-cond-scale: a variation begins with a picture"),
        (
            ["variation", "kid.png", "--negative", RED, "--cond-scale", "1", "--prior-cond-scale", "3"],
            "or no unet that draws has a condition; set --cond-scale above 1",
        ),
        (["dream", RED, "--eta", "0.5"], "--eta 0.5: only ddim has it, and dpm++ draws; add --sampler ddim"),
        (["sweep", RED], "a sweep of one picture: give an option several values, such as --steps 8,25"),
        (["sweep", RED, "--steps", "8,8"], "a sweep of steps over [8, 8]: expected different values"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_drawn(
    sp_data: Command,
    trained_lake: Lake,
    kid: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(kid.parent)
    Image.new("L", (50, 40)).save("black.png")
    Image.new("L", (90, 10), 255).save("long.png")
    Path("page.html").write_text("<html></html>")
    ended = sp_data(*arguments, "--lake", Path(trained_lake.root).parent, "--out", "out", "--quiet")
    assert ended.code == 2, ended.err
    assert ended.out == ""
    (told,) = ended.sentences
    assert sentence in told
    assert not list(kid.parent.glob("out/*"))


def test_weights_that_vanished_are_one_sentence(sp_data: Command, trained_copy: Lake, tmp_path: Path) -> None:
    manifest = manifests.latest(trained_copy, "prior")
    assert manifest is not None
    folder = manifest.details["networks"][0]["best"]["folder"]
    trained_copy.remove(f"{folder}/{checkpoints.WEIGHTS}")
    ended = sp_data("dream", RED, "--lake", tmp_path / "lake", "--quiet", *QUICKLY)
    assert ended.code == 1
    (sentence,) = ended.sentences
    assert folder in sentence


def test_what_was_drawn_before_a_failure_is_named(
    sp_data: Command, of_lake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pictures: torch.Tensor) -> list[Image.Image]:
        if len(drawn) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        drawn.extend(to_pictures(pictures))
        return drawn[-1:]

    drawn: list[Image.Image] = []
    to_pictures = generator_module.to_pictures
    monkeypatch.setattr(generator_module, "to_pictures", full)
    monkeypatch.setattr(generator_module, "BATCH", 1)
    for option in ((), ("--json",)):
        drawn.clear()
        ended = sp_data("dream", RED, "-n", "3", *of_lake, *option, "--quiet")
        assert ended.code == 1
        assert "one picture does not fit into the free memory" in ended.sentences[-1]
        named = [each["path"] for each in json.loads(ended.out)["pictures"]] if option else ended.out.splitlines()
        assert [origin(Path(path))["seed"] for path in named] == [0, 1]


def dream_into(file: Path, arguments: list[str]) -> None:
    """In a process of its own."""
    # Threads of the process that this one was forked from are not here.
    torch.set_num_threads(1)
    sys.argv = ["sp-data", "dream", RED, *arguments, "--quiet"]
    sys.stdout = file.open("w")
    try:
        main()
    finally:
        sys.stdout.close()


def test_two_commands_at_once_write_both(of_lake: list[str], tmp_path: Path) -> None:
    # A fork spares the imports.
    context = multiprocessing.get_context("fork")
    told = [tmp_path / "one.txt", tmp_path / "two.txt"]
    both = [
        context.Process(target=dream_into, args=(file, [*of_lake, "-n", number]))
        for file, number in zip(told, ("1", "2"), strict=True)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=120)
    assert [process.exitcode for process in both] == [0, 0]
    one, two = ([Path(line) for line in file.read_text().splitlines()] for file in told)
    assert [origin(path)["seed"] for path in two[:2]] == [0, 1]
    assert one[0] == two[0], "the same picture has the same name"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in two)
