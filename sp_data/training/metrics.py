"""metrics.jsonl: one line every `log_every` steps; always whole, and cut back to the checkpoint on resuming."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sp_data.errors import CorruptFile
from sp_data.lake import FileEntry, Lake


def metrics_path(run: str) -> str:
    return f"runs/{run}/metrics.jsonl"


@dataclass(slots=True)
class Metrics:
    lake: Lake
    run: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def resumed(cls, lake: Lake, run: str, step: int) -> Metrics:
        """The metrics of a run up to a step."""
        return cls(lake, run, [row for row in read_metrics(lake, run) if row["step"] <= step])

    def write(self, row: dict[str, Any]) -> FileEntry:
        """Add a line. The file is small and is rewritten each time, so it is whole on an object store too."""
        return self.write_all([*self.rows, row])

    def write_all(self, rows: list[dict[str, Any]]) -> FileEntry:
        """Replace all lines by these."""
        self.rows = rows
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        return self.lake.write_bytes(metrics_path(self.run), lines.encode(), timed=True)


def read_metrics(lake: Lake, run: str) -> list[dict[str, Any]]:
    """Every line of a run: step, loss, learning_rate, samples_per_second, and val_loss where it was evaluated."""
    path = metrics_path(run)
    if not lake.exists(path):
        return []
    try:
        return [json.loads(line) for line in lake.read_bytes(path).decode().splitlines()]
    except ValueError as error:
        raise CorruptFile(
            f"{lake.full(path)} is not a list of metrics ({error}); delete it and run the same command again"
        ) from error
