"""docs/cli.md, made from the commands' own help: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from sp_data.cli.app import whole_app

HEAD = """\
# Commands

Made from the commands' help by `make docs`; a test keeps it up to date.

`RECIPE` is a dataset in the lake by its name, `southpark`, `demo`, or a YAML file. A dataset knows its recipe:
`sp-data run mywiki` goes on with the one that it was made with, and a stock recipe is never taken in its place.
`--set a.b=c` changes it and says so: for good in commands that make something (run, the stages, train, judge) unless
they are refused, for that one command in status, dream and `scrape --dry-run`. `--lake` (or `SP_LAKE`) says where the
data lies: a folder or a URL such as `s3://bucket/lake`.

`--json` prints one JSON object on standard output and nothing else there; `--quiet` prints nothing but errors and what
was asked for. Exit 0: done; 1: failed, with the cause and the cure in one line; 2: bad usage.
"""


def reference() -> str:
    """The page as Markdown: a table of all commands, then each with its arguments and options."""
    group = typer.main.get_command(whole_app())
    assert isinstance(group, TyperGroup)
    # Plain text: typer's options would add the terminal's colours.
    context = typer.Context(group, info_name="sp-data")
    commands = {name: group.commands[name] for name in group.list_commands(context)}
    table = [f"| [`{name}`](#{name}) | {_help(command.help)} |" for name, command in commands.items()]
    lines = [HEAD, "| command | what it does |", "|---|---|", *table]
    for name, command in commands.items():
        lines += ["", f"## {name}", ""]
        inner = typer.Context(command, context, info_name=name)
        if isinstance(command, TyperGroup):
            lines.append(_help(command.help))
            for part, one in command.commands.items():
                lines += ["", f"### {name} {part}", "", *_section(one, typer.Context(one, inner, info_name=part))]
        else:
            lines += _section(command, inner)
    return "\n".join(lines) + "\n"


def _section(command: Any, context: typer.Context) -> Iterator[str]:
    yield "```"
    yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    yield _help(command.help)
    yield ""
    yield "| option | meaning |"
    yield "|---|---|"
    for parameter in command.params:
        if record := parameter.get_help_record(context):
            option, meaning = record
            option = option.removesuffix(" <str>")
            yield f"| `{_cell(option)}` | {_cell(meaning)} |"


def _help(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return _help(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
