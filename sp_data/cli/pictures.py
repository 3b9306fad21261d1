"""Commands that make pictures, and measure them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sp_data import errors
from sp_data.cli.drawing import Drawing, Session, draws, values_of
from sp_data.cli.options import DEFAULT_LAKE, STOCK, JsonOption, LakeOption, QuietOption, RecipeArgument, SetOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.generation.inputs import InputPicture

commands = typer.Typer()
CountOption = Annotated[int, typer.Option("-n", min=1, max=10_000, help="Pictures of each.")]


@commands.command()
@draws
def dream(
    drawing: Drawing,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT…", help='Such as "a kid in a red coat"; without one, prompts are asked for.'),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="A prompt a line; # begins a comment.")
    ] = None,
    num_pictures: CountOption = 1,
) -> None:
    """Make pictures from words; prompt, seed, options and checkpoints are written inside each PNG."""
    from sp_data.generation.prompts import check_prompt, read_prompts

    wanted = [*(prompts or []), *(read_prompts(file) if file else [])]
    for prompt in wanted:
        check_prompt(prompt)
    with drawing.session() as session:
        if wanted:
            _dream(session, wanted, num_pictures, drawing.seed)
            return
        # The models stay loaded: each picture costs its sampling alone.
        num_drawn: Counter[str] = Counter()
        for prompt in _typed():
            try:
                check_prompt(prompt)
                # Who asks again wants another picture.
                _dream(session, [prompt], num_pictures, drawing.seed + num_drawn[prompt])
                num_drawn[prompt] += num_pictures
            except errors.SpDataError as error:
                # The prompts that follow are not lost.
                say(f"sp-data: {error}", err=True)
            session.tell()


def _dream(session: Session, prompts: list[str], num_pictures: int, seed: int) -> None:
    session.warn_of_lost_words(dict.fromkeys(prompts))
    made = session.generator.dream(prompts, num_pictures=num_pictures, seed=seed, options=session.options)
    session.write(made, len(dict.fromkeys(prompts)) * num_pictures, "dream")


def _typed() -> Iterator[str]:
    """Prompts as they are typed, or a line each of what is piped in; until its end, or an empty line on a terminal."""
    from sp_data.generation.prompts import MAX_CHARACTERS

    if not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            # What is not UTF-8 is refused as a prompt; the next one is read.
            sys.stdin.reconfigure(errors="surrogateescape")
        while line := sys.stdin.readline(MAX_CHARACTERS + 2):
            if prompt := line.removeprefix("\ufeff").strip():
                yield prompt
            while line and not line.endswith("\n"):
                # The rest of a line that is too long.
                line = sys.stdin.readline(MAX_CHARACTERS + 2)
        return
    say("A prompt a line; an empty one ends.", err=True)
    while True:
        try:
            prompt = input("prompt> ").strip()
        except EOFError:
            return
        if not prompt:
            return
        yield prompt


@commands.command()
@draws
def variation(
    drawing: Drawing,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Pictures: PNG, JPEG, WebP, GIF, AVIF, …")],
    prompt: Annotated[str, typer.Option(help="Read only by a decoder that reads words.")] = "",
    num_pictures: CountOption = 1,
) -> None:
    """Make pictures of what CLIP sees in a picture."""
    from sp_data.generation.inputs import read_picture

    drawing.refuse_prior_scale("a variation")
    pictures = [read_picture(path) for path in images]
    with drawing.session() as session:
        made = session.generator.variation(
            pictures, prompt=prompt, num_pictures=num_pictures, seed=drawing.seed, options=session.options
        )
        session.write(made, len(pictures) * num_pictures, "variation")


@commands.command()
@draws
def inpaint(
    drawing: Drawing,
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="White = repaint, black = keep, grey = a soft edge.")],
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="What the whole picture shall show.")],
    num_pictures: CountOption = 1,
    resample_times: Annotated[
        int, typer.Option(min=1, help="How often a step is repeated, so that new and kept parts fit.")
    ] = 5,
) -> None:
    """Draw the white part of a mask anew; the rest of the picture stays as it is, byte for byte."""
    from sp_data.generation.inputs import read_mask, read_picture, repainting

    painted = repainting(read_picture(image), read_mask(mask), str(mask))
    with drawing.session() as session:
        options = dataclasses.replace(session.options, resample_times=resample_times)
        session.warn_of_lost_words(prompts)
        made = session.generator.inpaint(
            [painted], prompts, num_pictures=num_pictures, seed=drawing.seed, options=options
        )
        session.write(made, len(dict.fromkeys(prompts)) * num_pictures, "inpaint")


@commands.command()
@draws
def interpolate(
    drawing: Drawing,
    first: Annotated[str, typer.Argument(metavar="A", help="A picture's file, or a prompt.")],
    last: Annotated[str, typer.Argument(metavar="B", help="A picture's file, or a prompt.")],
    num_pictures: Annotated[int, typer.Option("-n", min=2, max=256, help="Pictures on the way, ends included.")] = 8,
) -> None:
    """Make pictures on the way from one picture or prompt to another."""
    ends = [_picture_or_prompt(end) for end in (first, last)]
    with drawing.session() as session:
        session.warn_of_lost_words(end for end in ends if isinstance(end, str))
        made = session.generator.interpolate(
            ends[0], ends[1], num_pictures=num_pictures, seed=drawing.seed, options=session.options
        )
        labels = [f"{position / (num_pictures - 1):.0%}" for position in range(num_pictures)]
        session.write(made, num_pictures, "interpolate", labels=labels)


def _picture_or_prompt(end: str) -> InputPicture | str:
    from sp_data.generation.inputs import read_picture
    from sp_data.generation.prompts import check_prompt

    try:
        is_file = Path(end).is_file()
    except OSError:
        # Too long for a file's name.
        is_file = False
    if is_file:
        return read_picture(Path(end))
    if " " not in end and Path(end).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif"):
        raise errors.UsageError(f"there is no picture {end}; a prompt has no such ending")
    check_prompt(end)
    return end


@commands.command()
@draws
def upscale(
    drawing: Drawing,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…")],
    start_unet: Annotated[
        int, typer.Option(min=2, help="The first unet that enlarges; the picture is first made as small as its input.")
    ] = 2,
) -> None:
    """Enlarge pictures by the decoder's upsamplers alone."""
    from sp_data.generation.inputs import read_picture

    drawing.refuse_prior_scale("upscale")
    pictures = [read_picture(path) for path in images]
    with drawing.session() as session:
        made = session.generator.upscale(pictures, start_unet=start_unet, seed=drawing.seed, options=session.options)
        session.write(made, len(pictures), "upscale")


@commands.command()
@draws
def sweep(
    drawing: Drawing,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="A grid for each.")],
    prior_cond_scale: Annotated[
        str | None, typer.Option(metavar="N[,N…]", help="Values of the prior's guidance.")
    ] = None,
    cond_scale: Annotated[
        str | None,
        typer.Option("--decoder-cond-scale", "--cond-scale", metavar="N[,N…]", help="Of the decoder's guidance."),
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="N[,N…]", help="Numbers of steps.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="NAME[,NAME…]", help="dpm++, ddim.")] = None,
) -> None:
    """Draw one prompt at one seed with every combination of some options, in a labelled grid."""
    from sp_data.generation.picture import slug
    from sp_data.generation.prompts import check_prompt
    from sp_data.generation.sweep import Sweep, grid
    from sp_data.generation.sweep import sweep as draw_sweep
    from sp_data.runtime.contact_sheet import jpeg

    for prompt in prompts:
        check_prompt(prompt)
    # What is not given stays as the models have it.
    values = {}
    if prior_cond_scale is not None:
        values["prior_cond_scale"] = values_of(prior_cond_scale, float, "--prior-cond-scale")
    if cond_scale is not None:
        values["cond_scale"] = values_of(cond_scale, float, "--decoder-cond-scale")
    if steps is not None:
        values["steps"] = values_of(steps, int, "--steps")
    if sampler is not None:
        values["sampler"] = values_of(sampler, str, "--sampler")
    axes = Sweep(values)
    with drawing.session() as session:
        session.warn_of_lost_words(prompts)
        for prompt in dict.fromkeys(prompts):
            made = draw_sweep(session.generator, prompt, axes, seed=drawing.seed, options=session.options)
            written = session.write(made, len(axes), "sweep", sheet=False)
            picture = grid([entry.made for entry in written], axes, f"{prompt} · seed {drawing.seed}")
            digest = hashlib.sha256("\n".join(entry.path for entry in written).encode()).hexdigest()[:8]
            session.add_sheet(session.folder.write(f"sweep-{slug(prompt)}-{digest}.jpg", jpeg(picture, 92)))


@commands.command()
def judge(
    name: RecipeArgument = None,
    sets: SetOption = None,
    url: LakeOption = DEFAULT_LAKE,
    pictures: Annotated[
        Path | None, typer.Option(help="Judge the PNGs of this folder, made by `dream`, against their own prompts.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure coats and hats of the demo's pictures against the words that asked for them."""
    from sp_data.cli.terminal import shown

    if pictures is not None:
        if name or sets:
            raise errors.UsageError("--pictures judges PNGs by their own prompts: it takes neither RECIPE nor --set")
        from sp_data.judge.stage import judge_folder

        table = judge_folder(pictures)
    else:
        from sp_data.kept_recipe import remembered
        from sp_data.pipeline import run_stage
        from sp_data.runtime.progress import onlooker

        recipe, lake = recipe_and_lake(name, sets, url, quiet=quiet, keeps=True, default=STOCK, loads_clip=True)
        with shown(quiet=quiet or json_), remembered(recipe, lake):
            table = run_stage("judge", recipe, lake, progress=onlooker()).manifest.details["table"]
    if json_:
        print_json(table)
        return
    for name, line in table.items():
        clip = f", by CLIP {line['clip_coat']:.1%} and {line['clip_hat']:.1%}" if "clip_coat" in line else ""
        say(f"{name:<7} n {line['n']:>4}   coat {line['coat']:.1%}   hat {line['hat']:.1%}{clip}")
