"""The command as a whole: its groups of commands, and how a failure becomes one sentence and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Annotated, NoReturn

import typer

from sp_data import __version__, errors
from sp_data.cli import deploy, exchange, page, pictures, pipeline, provenance, run, upkeep, weights
from sp_data.cli.output import say

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: rich would take longer to import than the rest of the command.
    rich_markup_mode=None,
    help="From a fandom wiki to a fine-tuned DALL-E 2. Start with: sp-data run demo",
)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"sp-data {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def whole_app() -> typer.Typer:
    """The app with all its commands."""
    if not app.registered_groups:
        pipeline.add_stage_commands()
        for group in (run, pipeline, pictures, page, provenance, exchange, upkeep, deploy):
            app.add_typer(group.commands)
        app.add_typer(weights.commands, name="weights")
    return app


def main() -> NoReturn:
    """Run the command and turn every failure into one sentence and an exit code."""
    # As Ctrl-C: a training saves before it ends. Prefect has a way of its own while a flow runs.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        whole_app()()
    except errors.SpDataError as error:
        _end(str(error), error.exit_code, error.items)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise
        _end("interrupted; what was finished is kept: the same command goes on from there", 1)
    except OSError as error:
        if error.errno is None:
            raise
        _end(errors.system_sentence(error), 1)
    sys.exit(0)


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C.
        signal.default_int_handler(signal_number, frame)
    signal.raise_signal(signal.SIGINT)


def _end(sentence: str, code: int, items: Iterable[str] = ()) -> NoReturn:
    say(f"sp-data: {sentence}", err=True)
    for item in items:
        say(f"  {item}", err=True)
    sys.exit(code)
