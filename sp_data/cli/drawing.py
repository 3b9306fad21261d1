"""Options that every command which draws has, and what it does with them: load models once, write and name pictures.

@commands.command()
@draws
def variation(images: …, drawing: Drawing) -> None:      # --seed, --steps, --out … come with `drawing`
    with drawing.session() as session:
        session.write(session.generator.variation(…), len(images))
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from sp_data import errors
from sp_data.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, QuietOption, RecipeOption, SetOption
from sp_data.cli.output import print_json, say
from sp_data.cli.recipes import recipe_and_lake

if TYPE_CHECKING:
    from sp_data.generation.files import PictureFolder, WrittenPicture
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.options import SamplingOptions
    from sp_data.generation.picture import GeneratedPicture
    from sp_data.lake import Lake
    from sp_data.recipe import Recipe

NUMBERS = "N[,N…]"


@dataclass(frozen=True, slots=True)
class Drawing:
    seed: Annotated[int, typer.Option(min=0, max=2**53, help="Of the first picture; the next have the next seeds.")] = 0
    sampler: Annotated[
        str | None,
        typer.Option(metavar="dpm++|ddim|ddpm", help="Default: dpm++, which needs the fewest steps; ddim to inpaint."),
    ] = None
    steps: Annotated[
        str | None, typer.Option(metavar=NUMBERS, help="Of the sampler; one number, or one a unet. 8 to 25 will do.")
    ] = None
    cond_scale: Annotated[
        str | None,
        typer.Option(
            "--cond-scale",
            "--decoder-cond-scale",
            metavar=NUMBERS,
            help="Guidance of the decoder, one number or one a unet: above 1 follows the embedding more closely.",
        ),
    ] = None
    prior_cond_scale: Annotated[
        float, typer.Option(help="Guidance of the prior: above 1 follows the words more closely.")
    ] = 1.0
    prior_steps: Annotated[int | None, typer.Option(min=2, help="Of the prior's sampler.")] = None
    eta: Annotated[float, typer.Option(min=0, max=1, help="Noise of ddim: 0 none.")] = 1.0
    negative: Annotated[
        str, typer.Option(metavar="PROMPT", help="What the picture should not show; needs guidance above 1.")
    ] = ""
    best_of: Annotated[int, typer.Option(min=1, help="Draw so many of each and keep the one that CLIP likes best.")] = 1
    stop_unet: Annotated[int | None, typer.Option(min=1, help="The last unet that draws; default: all.")] = None
    out: Annotated[Path | None, typer.Option(help="Folder for the PNGs; default: generated/ in the lake.")] = None
    sidecar: Annotated[bool, typer.Option("--sidecar", help="Write a .json with the origin beside each PNG.")] = False
    name: RecipeOption = None
    sets: SetOption = None
    url: LakeOption = DEFAULT_LAKE
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="best|latest|PATH|NAME",
            help="Default: best; a PATH for each of prior and unets, or the NAME of adopted weights (sp-data weights).",
        ),
    ] = None
    models: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Models of a dalle2-laion configuration, instead of a dataset's."),
    ] = None
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to draw.")] = "auto"
    precision: Annotated[
        str, typer.Option(metavar="auto|fp32|bf16", help="auto: bf16 where it is clearly faster, which is measured.")
    ] = "auto"
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile, on a GPU, for many pictures.")] = False
    quiet: QuietOption = False
    json_: JsonOption = False

    def options(self) -> SamplingOptions:
        from sp_data.generation.options import SamplingOptions

        return SamplingOptions(
            sampler=self.sampler,  # type: ignore[arg-type]  # checked there
            steps=_numbers(self.steps, int, "--steps"),
            eta=self.eta,
            cond_scale=_numbers(self.cond_scale, float, "--cond-scale"),
            prior_cond_scale=self.prior_cond_scale,
            prior_steps=self.prior_steps,
            negative_prompt=self.negative,
            best_of=self.best_of,
            stop_unet=self.stop_unet,
        )

    def refuse_prior_scale(self, what: str) -> None:
        """Raise UsageError for guidance of the prior: `what` uses the prior only for a negative prompt."""
        if self.prior_cond_scale != 1 and not self.negative:
            raise errors.UsageError(f"--prior-cond-scale: {what} begins with a picture, so the prior is not asked")

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Models loaded, progress shown; at the end, also that of a failure, the paths of all pictures are printed."""
        from sp_data.cli.terminal import shown

        _one_of(self.device, "--device", ("auto", "cpu", "cuda"))
        _one_of(self.precision, "--precision", ("auto", "fp32", "bf16"))
        recipe, lake = recipe_and_lake(self.name, self.sets, self.url, quiet=self.quiet, loads_clip=True)
        with shown(quiet=self.quiet or self.json_):
            from sp_data.runtime.threads import import_torch

            import_torch()
            from sp_data.generation.files import PictureFolder
            from sp_data.generation.generator import ImageGenerator

            options = self.options()
            # Before the models: a folder that cannot be written is known at once.
            folder = PictureFolder(lake, self.out)
            if self.models is not None:
                from sp_data.generation.laion import load_configuration

                models = load_configuration(self.models, recipe, lake, self.checkpoint, self.device)
            else:
                from sp_data.generation.models import load_models

                models = load_models(recipe, lake, self.checkpoint, self.device)
            generator = ImageGenerator(
                models,
                self.precision,  # type: ignore[arg-type]  # checked above
                compile_networks=self.compile_,
            )
            session = Session(self, recipe, lake, generator, options, folder)
            try:
                yield session
            except BaseException:
                # Ctrl-C too: the paths of what was drawn are not lost.
                if session.written:
                    session.finish()
                raise
        session.finish()


@dataclass(slots=True)
class Session:
    drawing: Drawing
    recipe: Recipe
    lake: Lake
    generator: ImageGenerator
    options: SamplingOptions
    folder: PictureFolder
    written: list[WrittenPicture] = field(default_factory=list)
    sheets: list[str] = field(default_factory=list)
    _num_told: int = 0

    def write(
        self,
        pictures: Iterable[GeneratedPicture],
        count: int,
        what: str,
        *,
        labels: Sequence[str] | None = None,
        sheet: bool = True,
    ) -> list[WrittenPicture]:
        """Draw and write each picture, and a sheet of them if there are several."""
        from sp_data.runtime.progress import onlooker

        progress = onlooker()
        progress.begin(what, count, "pictures")
        written = []
        for entry in self.folder.write_each(pictures, sidecars=self.drawing.sidecar):
            written.append(entry)
            # Kept at once: if a later picture fails, these are still named.
            self.written.append(entry)
            progress.advance()
        if len(written) > 1 and sheet:
            self.sheets.append(self.folder.write_sheet([entry.made for entry in written], labels))
        return written

    def add_sheet(self, path: str) -> None:
        self.sheets.append(path)

    def warn_of_lost_words(self, prompts: Iterable[str]) -> None:
        from sp_data.generation.prompts import lost_words_sentence

        for prompt in prompts:
            if sentence := lost_words_sentence(prompt):
                say(f"sp-data: {sentence}", err=True)

    def tell(self) -> None:
        """Print the paths of what was drawn since the last time."""
        if self.drawing.json_:
            return
        for entry in self.written[self._num_told :]:
            say(entry.path)
        self._num_told = len(self.written)
        for path in self.sheets:
            say(path)
        self.sheets.clear()

    def finish(self) -> None:
        if not self.drawing.json_:
            self.tell()
            return
        pictures = [
            {"path": entry.path, **entry.made.origin, "scores": rounded(entry.made.scores)} for entry in self.written
        ]
        print_json({"dataset": self.recipe.name, "pictures": pictures, "sheets": self.sheets})


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def draws(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of `Drawing`, and hand it to the parameter `drawing`."""
    own = inspect.signature(command, eval_str=True)
    hints = get_type_hints(Drawing, include_extras=True)
    shared = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[option.name]
        )
        for option in fields(Drawing)
        # What the command itself has, it may read in its own way.
        if option.name not in own.parameters
    ]
    mine = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own.parameters.values()
        if parameter.name != "drawing"
    ]

    @functools.wraps(command)
    def with_drawing(**values: Any) -> None:
        drawing = Drawing(**{parameter.name: values.pop(parameter.name) for parameter in shared})
        command(**values, drawing=drawing)

    with_drawing.__signature__ = inspect.Signature([*mine, *shared])  # type: ignore[attr-defined]
    with_drawing.__annotations__ = {parameter.name: parameter.annotation for parameter in [*mine, *shared]}
    # typer looks at the wrapped function otherwise.
    del with_drawing.__wrapped__
    return with_drawing


def _numbers(text: str | None, kind: type[Any], option: str) -> Any:
    """'8' -> 8, '8,12' -> (8, 12)."""
    values = None if text is None else values_of(text, kind, option)
    return values[0] if values and len(values) == 1 else values


def values_of(text: str, kind: type[Any], option: str) -> tuple[Any, ...]:
    """'8,12' -> (8, 12). Raises UsageError."""
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise errors.UsageError(f"{option} {text}: expected a number, or numbers with commas between them") from error


def _one_of(value: str, option: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise errors.UsageError(f"{option} {value}: expected {', '.join(expected[:-1])} or {expected[-1]}")
