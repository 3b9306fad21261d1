"""Pictures: our way beside dalle2-laion's, and the time of the first and the next picture of `sp-data dream`, on a CPU.

    python benchmarks/generate.py [--quick] [--json] [--lake URL] [--recipe NAME] [--set A.B=C]

1. The whole command, as a user runs it: until the first picture and the command's end, and what the next prompt takes
   while the models are loaded; wall seconds, the median of three.
2. Where the CPU seconds of the first picture go: imports, loading, measuring the precision, prior, decoder, writing.
3. A request of one guided picture (1.7), ours beside dalle2-laion's way: its sampler with 50 steps of DDIM, each with
   two passes of the network one after the other, and models that are copied to the device for each request.
4. Our default sampler beside our DDIM of 32 steps, unguided; on the demo the judge's shares and CLIP's cosines of both.
5. A guided pass of the first unet in one batch beside two passes; the last unet in bf16 beside float32.

1 takes the threads that torch takes; the others are CPU seconds on one thread, of ways that take turns, medians.

The models are those of the lake, by default of ./lake. Where that has none, they have the demo's sizes and random
weights: the times are the same, and there is nothing to judge. --quick: fewer and smaller rounds, a minute; without it
some five.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import copy
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ENVIRONMENT = dict(os.environ)
"""Of the commands that are measured."""
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.models import Models
    from sp_data.recipe import Recipe

Figures = dict[str, float]
GUIDANCE, PEER_STEPS, PEER_CANDIDATES = 1.7, 50, 2
"""As dalle2-laion samples: the decoder's guidance, DDIM's steps, and the prior's guesses, of which it takes the better
one."""
DDIM_STEPS = 32
COMMANDS = 3
PROMPT = "a kid in a red coat and a blue cap at the lake"
NEXT_PROMPT = "a kid in a green coat and a pink beanie at the hill"
PEER = (
    "prior.load_state_dict(…); decoder.load_state_dict(…); embeds = prior.p_sample_loop((2, dim), text_cond=…, "
    "cond_scale=1.0); decoder.sample(image_embed=embeds[best], cond_scale=1.7), sample_timesteps=(50, 50)"
)


@dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    """Of each comparison."""
    pictures: int
    """Drawn at once, and in each round, to compare samplers."""
    passes: int
    """Of a network, in a round."""
    first_pictures: int
    """Whose parts are timed."""
    at_a_time: int
    """Measurements that are made at the same time, each in a process of one thread."""


FULL, QUICK = Effort(8, 16, 10, 3, 1), Effort(3, 2, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--lake", metavar="URL", help="default: ./lake if it has models, else random ones")
    parser.add_argument("--recipe", metavar="NAME", default="demo", help="a dataset of the lake")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="A.B=C", help="as of sp-data dream")
    # How this script calls itself.
    parser.add_argument("--parts", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.parts:
        print(json.dumps(first_picture_by_part(arguments.lake, arguments.recipe, arguments.sets)))
        return
    effort = QUICK if arguments.quick else FULL
    with contextlib.ExitStack() as stack:
        url = arguments.lake or ("./lake" if _has_models("./lake", arguments.recipe) else None)
        is_trained = url is not None
        if url is None:
            url = stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-data-benchmark-"))
            make_random_models(url, arguments.recipe, arguments.sets)
        figures = measure_command(url, arguments.recipe, arguments.sets)
        figures |= measure_ways(url, arguments.recipe, arguments.sets, effort, is_trained)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"theirs: {PEER}")
    for name, value in figures.items():
        print(f"{name:32} {value:g}")


def measure_command(url: str, recipe: str, sets: list[str]) -> Figures:
    each = [command_s(url, recipe, sets) for _ in range(COMMANDS)]
    for first_s, next_s in each:
        note(f"sp-data dream: {first_s:.2f} s with the first picture, {next_s:.2f} s for the next one")
    return {
        name: round(statistics.median(seconds), 2)
        for name, seconds in zip(("first_picture_s", "next_picture_s"), zip(*each, strict=True), strict=True)
    }


def command_s(url: str, recipe: str, sets: list[str]) -> tuple[float, float]:
    """Wall seconds of the command with one picture, from its start to its end; and what a second picture adds."""
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as out:
        command = [sys.executable, "-m", "sp_data.cli", "dream", "--quiet", "--lake", url, "--recipe", recipe]
        command += ["--out", out, *(f"--set={change}" for change in sets)]
        begun = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(ENVIRONMENT)
        )
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = []
        for prompt in (PROMPT, NEXT_PROMPT):
            process.stdin.write(f"{prompt}\n")
            process.stdin.flush()
            if not process.stdout.readline().strip():
                raise RuntimeError(f"{' '.join(command)} drew nothing and ended with {process.wait()}")
            seconds.append(time.monotonic() - begun)
            begun = time.monotonic()
        process.stdin.close()
        process.wait()
        return seconds[0] + time.monotonic() - begun, seconds[1]


def _environment(variables: dict[str, str]) -> dict[str, str]:
    # The bytecode of this environment is written by the first command, as it is for a user.
    return {**variables, "PYTHONDONTWRITEBYTECODE": ""}


def first_picture_by_part(url: str, recipe_name: str, sets: list[str]) -> Figures:
    """CPU seconds of what `sp-data dream` does for one picture, in this process, which has imported nothing so far.

    Imports count as such wherever they are made.
    """
    parts: Figures = {}
    with _imports_timed() as imported:
        last = {"cpu": 0.0, "imports": 0.0}

        def lap(part: str) -> None:
            cpu, imports = time.process_time(), imported()
            parts[part] = parts.get(part, 0.0) + (cpu - last["cpu"]) - (imports - last["imports"])
            last.update(cpu=cpu, imports=imports)

        from sp_data.cli.app import app  # noqa: F401
        from sp_data.cli.recipes import recipe_and_lake
        from sp_data.generation.files import PictureFolder
        from sp_data.generation.generator import ImageGenerator
        from sp_data.generation.models import load_models

        recipe, lake = recipe_and_lake(recipe_name, sets, url, quiet=True)
        lap("recipe and lake")
        models = load_models(recipe, lake)
        lap("loading the models")
        generator = ImageGenerator(models)
        lap("measuring the precision")
        prior_steps = generator.settled(None, "dream").prior_steps

        def on_step(step: int, _: int) -> None:
            if step == prior_steps:
                lap("words and prior")

        with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as out:
            for made in generator.dream([PROMPT], on_step=on_step):
                lap("decoder and CLIP's look at it")
                for _ in PictureFolder(lake, Path(out)).write_each([made]):
                    lap("writing")
        return {"imports": imported(), **parts}


@contextlib.contextmanager
def _imports_timed() -> Iterator[Callable[[], float]]:
    """Gives a function that tells the CPU seconds that import statements have taken."""
    plain, spent, is_importing = builtins.__import__, 0.0, False

    def timed(*arguments: Any, **named: Any) -> Any:
        nonlocal spent, is_importing
        if is_importing:
            return plain(*arguments, **named)
        is_importing, begun = True, time.process_time()
        try:
            return plain(*arguments, **named)
        finally:
            is_importing, spent = False, spent + time.process_time() - begun

    builtins.__import__ = timed
    try:
        yield lambda: spent
    finally:
        builtins.__import__ = plain


def measure_ways(url: str, recipe_name: str, sets: list[str], effort: Effort, is_trained: bool) -> Figures:
    import torch

    # Forked processes must not inherit a pool of threads.
    torch.set_num_threads(1)
    from sp_data.cli.recipes import recipe_and_lake
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.models import load_models

    recipe, lake = recipe_and_lake(recipe_name, sets, url, quiet=True)
    generator = ImageGenerator(load_models(recipe, lake))
    judged = recipe if is_trained and recipe.judge is not None else None
    measures: list[Callable[[], Figures]] = [
        partial(measure_two_pass, generator, effort),
        partial(measure_samplers, generator, effort, judged),
        # Of its own: the generator's may have been rounded to bfloat16.
        partial(measure_networks, load_models(recipe, lake), effort),
        *[partial(_parts_of_a_child, url, recipe_name, sets)] * effort.first_pictures,
    ]
    measured = _each_in_a_process(measures, effort.at_a_time)
    ways, runs = measured[: -effort.first_pictures], measured[-effort.first_pictures :]
    parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
    note("CPU seconds of the first picture, on one thread")
    for part, seconds in [*parts.items(), ("all", sum(parts.values()))]:
        note(f"  {part:32}{seconds:>8.2f}")
    figures = {name: value for way in ways for name, value in way.items()}
    return {**figures, "import_cpu_s": round(parts["imports"], 2), "first_picture_cpu_s": round(sum(parts.values()), 2)}


def _parts_of_a_child(url: str, recipe: str, sets: list[str]) -> Figures:
    command = [sys.executable, __file__, "--parts", "--lake", url, "--recipe", recipe]
    done = subprocess.run(
        [*command, *(f"--set={change}" for change in sets)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=_environment(dict(os.environ)),
    )
    figures: Figures = json.loads(done.stdout)
    return figures


_measures: list[Callable[[], Figures]] = []


def _each_in_a_process(measures: list[Callable[[], Figures]], at_a_time: int) -> list[Figures]:
    # Forked, they have the models, which cannot be sent.
    _measures[:] = measures
    with ProcessPoolExecutor(at_a_time, mp_context=multiprocessing.get_context("fork")) as processes:
        return list(processes.map(_measured, range(len(measures))))


def _measured(number: int) -> Figures:
    return _measures[number]()


def measure_two_pass(generator: ImageGenerator, effort: Effort) -> Figures:
    from sp_data.generation.options import SamplingOptions

    peer, options = Peer(generator.models), SamplingOptions(cond_scale=GUIDANCE)
    seeds = iter(range(1_000_000))
    seconds = by_turns(
        {
            "ours": lambda: list(generator.dream([PROMPT], seed=next(seeds), options=options)),
            "theirs": lambda: peer.request(PROMPT),
            "theirs, moving alone": peer.move,
        },
        effort.rounds,
    )
    note(
        f"a request of one picture: {seconds['ours']:.2f} CPU s by us, {seconds['theirs']:.2f} as dalle2-laion, "
        f"{seconds['theirs, moving alone']:.3f} of them for moving the models"
    )
    return {"over_two_pass": round(seconds["theirs"] / seconds["ours"], 2)}


class Peer:
    """dalle2-laion's way, by dalle2-pytorch's own classes, with the weights of `models`."""

    def __init__(self, models: Models) -> None:
        from sp_data.training.models import build_decoder, build_prior

        self.models = models
        self.prior = build_prior(models.prior_weights.config).eval()
        self.decoder = build_decoder([weights.config for weights in models.unet_weights]).eval()
        self.decoder.sample_timesteps = (PEER_STEPS,) * models.num_unets

    def move(self) -> None:
        """From the CPU's memory to where they compute."""
        self.prior.load_state_dict(self.models.prior.state_dict())
        self.decoder.load_state_dict(self.models.decoder.state_dict())

    def request(self, prompt: str) -> Any:
        import torch

        from sp_data.training.decoder import to_pictures

        models, words = self.models, [prompt] * PEER_CANDIDATES
        self.move()
        text = torch.from_numpy(models.clip.embed_captions(words))
        encodings = None if models.words is None else models.words(words)
        condition = {"text_embed": text}
        if encodings is not None and self.prior.condition_on_text_encodings:
            condition["text_encodings"] = encodings
        with torch.inference_mode():
            embeds = self.prior.p_sample_loop(
                tuple(text.shape), text_cond=condition, cond_scale=1.0, timesteps=models.prior.sample_timesteps
            )
            best = int(torch.nn.functional.cosine_similarity(embeds, text).argmax())
            reads_words = encodings is not None and self.decoder.condition_on_text_encodings
            drawn = self.decoder.sample(
                image_embed=embeds[best : best + 1],
                text_encodings=encodings[:1] if encodings is not None and reads_words else None,
                cond_scale=GUIDANCE,
            )
        return to_pictures(drawn)


def measure_samplers(generator: ImageGenerator, effort: Effort, judged: Recipe | None) -> Figures:
    """`judged`: the recipe whose judge's prompts are drawn; None: any prompt, and no judgement."""
    from sp_data.generation.options import SamplingOptions

    count = effort.rounds * effort.pictures
    prompts = _prompts(judged, count)
    ways = {"ours": SamplingOptions(), "ddim_32": SamplingOptions(sampler="ddim", steps=DDIM_STEPS)}
    made: dict[str, list[Any]] = {way: [] for way in ways}

    def draw(way: str) -> None:
        first = len(made[way])
        rows = [(prompt, first + row) for row, prompt in enumerate(prompts[first : first + effort.pictures])]
        made[way] += generator.dream_seeds(rows, options=ways[way])

    seconds = by_turns({way: partial(draw, way) for way in ways}, effort.rounds)
    settled = generator.settled(None, "dream")
    note(
        f"{settled.sampler} with {settled.steps} steps: {seconds['ours'] / effort.pictures:.2f} CPU s a picture; "
        f"ddim with {DDIM_STEPS}: {seconds['ddim_32'] / effort.pictures:.2f}"
    )
    figures = {f"over_ddim_{DDIM_STEPS}": round(seconds["ddim_32"] / seconds["ours"], 2)}
    if judged is not None:
        for way, pictures in made.items():
            figures |= {f"{way}_{name}": value for name, value in _judgement(pictures).items()}
        figures["judged_pictures"] = count
    return figures


def _prompts(judged: Recipe | None, count: int) -> list[str]:
    if judged is None or judged.judge is None:
        return [PROMPT] * count
    from sp_data.judge.stage import questions

    return [question.prompt for question in questions(count, judged.judge.seed)]


def _judgement(pictures: list[Any]) -> Figures:
    """Shares of the right coats and hats, and the mean of CLIP's cosines between picture and prompt."""
    from sp_data.judge import colours

    rows = [(colours.colours_of_prompt(made.prompt), colours.read(made.picture), made) for made in pictures]
    return {
        "coat": round(statistics.mean(asked.coat == read.coat for asked, read, _ in rows), 4),
        "hat": round(statistics.mean(asked.hat == read.hat for asked, read, _ in rows), 4),
        "clip": round(statistics.mean(made.scores["clip"] for _, _, made in rows), 4),
    }


def measure_networks(models: Models, effort: Effort) -> Figures:
    from sp_data.generation.guidance import GuidedUnet
    from sp_data.generation.precision import autocast, round_weights

    first, last = models.decoder.unets[0], models.decoder.unets[-1]
    rounded = copy.deepcopy(last)
    round_weights(rounded)
    figures: Figures = {}
    for size in (1, 8):
        inputs = {unet: _inputs(models, number, size) for number, unet in ((0, first), (-1, last))}
        one_pass = GuidedUnet(first, GUIDANCE)

        def in_precision(precision: Any, arguments: dict[str, Any]) -> Any:
            unet = rounded if precision == "bf16" else last
            guided = GuidedUnet(unet, 1.0, autocast=autocast(precision, models.device))
            return guided.forward_with_cond_scale(**arguments)

        seconds = by_turns(
            {
                "one pass": partial(one_pass.forward_with_cond_scale, **inputs[first]),
                "two passes": partial(first.forward_with_cond_scale, **inputs[first], cond_scale=GUIDANCE),
                "fp32": partial(in_precision, "fp32", inputs[last]),
                "bf16": partial(in_precision, "bf16", inputs[last]),
            },
            effort.rounds,
            effort.passes,
        )
        suffix = "" if size == 1 else f"_batch_{size}"
        figures[f"guidance_one_pass_over_two{suffix}"] = round(seconds["two passes"] / seconds["one pass"], 3)
        figures[f"bf16_over_fp32{suffix}"] = round(seconds["fp32"] / seconds["bf16"], 3)
    return figures


def _inputs(models: Models, index: int, size: int) -> dict[str, Any]:
    """Arguments of a unet's forward pass."""
    import torch

    decoder, generator = models.decoder, torch.Generator().manual_seed(0)
    unet, side = decoder.unets[index], int(decoder.image_sizes[index])
    picture = torch.randn((size, 3, side, side), generator=generator)
    level = torch.zeros(size, dtype=torch.long)
    return {
        "x": picture,
        "time": torch.full((size,), 500),
        "image_embed": torch.nn.functional.normalize(torch.randn((size, models.dim), generator=generator), dim=-1),
        "text_encodings": torch.zeros((size, 77, models.dim)) if unet.cond_on_text_encodings else None,
        "lowres_cond_img": picture if unet.lowres_cond else None,
        "lowres_noise_level": level if unet.lowres_cond and decoder.lowres_conds[index].use_noise else None,
    }


def by_turns(ways: dict[str, Callable[[], Any]], rounds: int, times: int = 1) -> Figures:
    """The median CPU seconds of each; a machine that slows down slows all of them."""
    import torch

    each: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for _ in range(rounds):
            for way, work in ways.items():
                begun = time.process_time()
                for _ in range(times):
                    work()
                each[way].append((time.process_time() - begun) / times)
    return {way: statistics.median(seconds) for way, seconds in each.items()}


def make_random_models(url: str, recipe_name: str, sets: list[str]) -> None:
    """Checkpoints of a recipe's prior and unets, as a training would leave them, with weights as they begin."""
    from sp_data.dataset.embed.folder import clip_folder, identity_fields
    from sp_data.kept_recipe import remember_recipe
    from sp_data.lake import Lake
    from sp_data.recipe import load_recipe
    from sp_data.training import checkpoints
    from sp_data.training.models import build_decoder, build_prior, num_parameters, prior_config, unet_config

    recipe = load_recipe(recipe_name, sets)
    lake, clip = Lake(url, recipe.name), clip_folder(identity_fields(recipe))
    remember_recipe(recipe, lake)
    numbers = range(1, len(recipe.decoder.unets) + 1)
    prior = prior_config(recipe.prior, recipe.embed.dim)
    unets = [unet_config(recipe.decoder, number, recipe.embed.dim) for number in numbers]
    runs = [f"decoder-unet{number}-random" for number in numbers]
    networks = [
        ("prior-random", None, prior, build_prior(prior)),
        *zip(runs, numbers, unets, build_decoder(unets).unets, strict=True),
    ]
    for run, number, config, network in networks:
        checkpoint = checkpoints.Checkpoint(
            kind="decoder" if number else "prior",
            unet=number,
            run=run,
            step=1,
            loss=0.0,
            val_loss=None,
            num_samples=0,
            dataset="",
            clip=clip,
            settings={},
            model=config,
            num_parameters=num_parameters(network),
            files=(),
        )
        checkpoints.save(lake, checkpoint, network.state_dict(), {})
        record = {"dataset": "", "runs": runs if number else [run]}
        lake.write_bytes(f"runs/{run}/config.json", json.dumps(record).encode())


def _has_models(url: str, recipe: str) -> bool:
    from sp_data.lake import Lake
    from sp_data.training.trained import runs_of

    lake = Lake(url, recipe)
    return all(runs_of(lake, kind) for kind in ("prior", "decoder"))


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
