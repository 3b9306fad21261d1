"""Tables, bars and log lines show what they hold, and a terminal acts on none of it."""

from __future__ import annotations

import io
import logging

import pytest
from fuzzing import few_and_many, fuzz
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from sp_data.cli import terminal
from sp_data.cli.terminal import Bars, shown, stage_table, status_table

HOSTILE = "[link=http://evil.example]x[/link] [bold]y[/] \x1b[2J\x1b]8;;http://evil.example\x07z\u202e\nnext"
PLAIN = "[link=http://evil.example]x[/link] [bold]y[/] \\x1b[2J\\x1b]8;;http://evil.example\\x07z\\u202e next"


def _status(reason: str) -> dict[str, object]:
    return {"name": "scrape", "state": "stale", "digest": None, "made_at": None, "bytes": None, "reason": reason}


def test_a_table_shows_a_reason_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    status_table([_status(HOSTILE)])
    stage_table([{"name": HOSTILE, "in": 1, "out": 1, "dropped": 0, "seconds": 0.1, "state": "done"}])
    out = capsys.readouterr().out
    assert out.count(PLAIN) == 2
    assert not any(ord(char) < 32 for char in out.replace("\n", ""))


@few_and_many
def test_no_reason_breaks_a_table(num_inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(reason: str) -> None:
        out = io.StringIO()
        monkeypatch.setattr(terminal, "_console", lambda: Console(file=out, width=200, force_terminal=True))
        status_table([_status(reason)])
        shown_lines = out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert "\x1b" not in shown_lines, ascii(shown_lines)

    fuzz(st.one_of(st.text(), st.text("[]/=link bold\x1b\x07\u202e\n:")), read, num_inputs)


def test_bars_and_log_lines_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with Progress(console=Console(file=out, width=200)) as progress:
        bars = Bars(progress)
        bars.begin(HOSTILE, 2, HOSTILE)
        assert (progress.tasks[0].description, progress.tasks[0].fields["unit"]) == (PLAIN, PLAIN)
    for is_terminal in (False, True):
        lines = io.StringIO()
        monkeypatch.setattr(lines, "isatty", lambda is_terminal=is_terminal: is_terminal, raising=False)
        monkeypatch.setattr("sys.stderr", lines)
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "400")
        with shown(quiet=False):
            logging.getLogger("sp_data.test").warning("%s", HOSTILE)
        assert PLAIN in " ".join(lines.getvalue().split())
