"""metrics.jsonl: one line every `log_every` steps, appended, and cut back to the checkpoint on resuming."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sp_data.canonical import parse_json
from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.lake.disk import disk_errors


def metrics_path(run: str) -> str:
    return f"runs/{run}/metrics.jsonl"


@dataclass(slots=True)
class Metrics:
    lake: Lake
    run: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def resumed(cls, lake: Lake, run: str, step: int) -> Metrics:
        """The metrics of a run up to a step; later lines are removed."""
        metrics = cls(lake, run)
        metrics.write_all([row for row in read_metrics(lake, run) if row["step"] <= step])
        return metrics

    def write(self, row: dict[str, Any]) -> None:
        """Add a line. An object store cannot append, so there the file is written anew."""
        if not self.lake.is_local:
            self.write_all([*self.rows, row])
            return
        self.rows.append(row)
        path = Path(self.lake.full(metrics_path(self.run)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(str(path)), path.open("a", encoding="utf-8") as stream:
            stream.write(_line(row))

    def write_all(self, rows: list[dict[str, Any]]) -> None:
        """Replace all lines by these."""
        self.rows = rows
        self.lake.write_bytes(metrics_path(self.run), "".join(map(_line, rows)).encode(), timed=True)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def read_metrics(lake: Lake, run: str) -> list[dict[str, Any]]:
    """Every line of a run: step, loss, learning_rate, samples_per_second, and val_loss where it was evaluated."""
    path = metrics_path(run)
    if not lake.exists(path):
        return []
    try:
        # A kill may have cut the last line.
        whole = lake.read_bytes(path).decode().rpartition("\n")[0]
        return [parse_json(line) for line in whole.splitlines()]
    except ValueError as error:
        raise CorruptFile(
            f"{lake.full(path)} is not a list of metrics ({error}); delete it and run the same command again"
        ) from error
