"""What a person sees of a run: a bar a stage on a terminal, plain lines in a log, and a table at the end."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from sp_data.foreign_text import OneLineFormatter, one_line

if TYPE_CHECKING:
    from sp_data.upkeep.overview import DatasetOverview

LOG_FORMAT = "%(asctime)s %(message)s"


class Bars:
    """One line with a bar for each stage that works."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: TaskID | None = None

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        for task in self._progress.tasks:
            if task.total is None:  # its total was unknown; it has ended
                self._progress.update(task.id, total=task.completed)
        self._stage = self._progress.add_task(one_line(stage), total=total, unit=one_line(unit))

    def advance(self, count: int = 1) -> None:
        if self._stage is not None:
            self._progress.advance(self._stage, count)

    def show(self, title: str, png: bytes) -> None:
        """A terminal shows no pictures."""


class _RateColumn(ProgressColumn):
    """'1.2/s' while a stage works; nothing before it is known."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed < 100 else f"{speed:,.0f}/s")


class _TimeLeftColumn(TimeRemainingColumn):
    """'12:34 left'; nothing once a stage is done, or where nobody knows how much there is to do."""

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None or task.time_remaining is None:
            return Text("")
        return super().render(task).append(" left")


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[None]:
    """Show progress on standard error meanwhile: bars if it is a terminal, log lines if not, nothing if `quiet`."""
    from sp_data.runtime.progress import looking_on

    logger = logging.getLogger("sp_data")
    # The handlers choose what is shown; the lines themselves go to a flow run's log too.
    logger.setLevel(logging.INFO)
    if quiet:
        with _handled_by(logger, logging.NullHandler()):
            yield
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            _RateColumn(),
            TimeElapsedColumn(),
            _TimeLeftColumn(compact=True),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress, looking_on(Bars(progress)):
            # The console writes above the bars.
            handler = RichHandler(
                console=progress.console,
                show_time=False,
                show_level=False,
                show_path=False,
                highlighter=NullHighlighter(),
            )
            handler.setFormatter(OneLineFormatter("%(message)s"))
            handler.addFilter(lambda record: record.levelno >= logging.WARNING or hasattr(record, "shown"))
            with _handled_by(logger, handler):
                yield
    else:
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(OneLineFormatter(LOG_FORMAT, "%H:%M:%S"))
        with _handled_by(logger, lines):
            yield


@contextlib.contextmanager
def _handled_by(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _console() -> Console:
    """Standard output; in a file or a pipe no line is cut to a terminal's width."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def stage_table(stages: Sequence[dict[str, Any]]) -> None:
    """Print the closing table of a run: stage, in, out, dropped, seconds, state."""
    table = Table("stage", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("in", "out", "dropped", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for stage in stages:
        numbers = (f"{stage[name]:,}" for name in ("in", "out", "dropped"))
        table.add_row(*_plain(stage["name"], *numbers, f"{stage['seconds']:.1f}", stage["state"]))
    _console().print(table)


def status_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print how each stage stands."""
    table = Table("stage", "state", "digest", "made at", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("bytes", justify="right")
    table.add_column("why")
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes']:,}"
        digest, made_at = (row["digest"] or "")[:12], row["made_at"] or ""
        table.add_row(*_plain(row["name"], row["state"], digest, made_at, size, row["reason"]))
    _console().print(table)


def overview_table(rows: Sequence[DatasetOverview]) -> None:
    """Print a lake's datasets, and below them what is due: sentences with commands, which a column would break."""
    from sp_data.upkeep.overview import HEADINGS, cells

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("pictures", "checkpoints", "GB") else "left")
    for row in rows:
        table.add_row(*_plain(*cells(row)))
    console = _console()
    console.print(table)
    for row in rows:
        for due in row.due or ("nothing",):
            console.print(*_plain(f"due of {row.name}: {due}"), soft_wrap=True)


def _plain(*cells: str) -> list[Text]:
    """Cells that show what they hold: a recipe's value may look like rich's markup."""
    return [Text(one_line(cell)) for cell in cells]


def duration(seconds: float) -> str:
    """'40 s', '12 min', '1 h 05 min'."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
