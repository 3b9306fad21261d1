"""All datasets of a lake at a glance: how old, when they were looked at and trained, how large, and what is due.

overview("./lake", now)    # [DatasetOverview(name='southpark', pictures=715, age_days=2.1, …, due=('…',))]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sp_data import manifest as manifests
from sp_data.errors import SpDataError
from sp_data.foreign_text import markdown
from sp_data.kept_recipe import recall_recipe
from sp_data.lake import Lake, datasets
from sp_data.manifest import Manifest
from sp_data.pipeline import stand
from sp_data.recipe import Recipe
from sp_data.training.dataset_change import change_since_training, due
from sp_data.training.decisions import decided
from sp_data.training.seen import saw_forgotten
from sp_data.training.trained import RECORD, TrainedCheckpoint, trained_checkpoints
from sp_data.wiki.state import last_look


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest training of one network, by the last checkpoint of it that lies there."""

    network: str
    """'prior', or 'unet1' of the decoder."""
    run: str
    step: int
    made_at: str


@dataclass(frozen=True, slots=True)
class DatasetOverview:
    """One dataset. Times are ISO 8601, empty where there is none."""

    name: str
    pictures: int | None
    """That are kept, in the newest tables; None: there are none."""
    verified_at: str
    age_days: float | None
    """Of the newest catalogue: since the wiki was last found to be another."""
    changed_at: str
    """When the newest catalogue was published."""
    looked_at: str
    """When the wiki was last asked whether anything changed, to within a day; empty for a list of addresses too."""
    trained_at: str
    """When the newest decoder was trained to its end."""
    runs: tuple[LastRun, ...]
    """The newest of each network, trained to its end or not."""
    checkpoints: int
    """Whole ones, of all runs."""
    checkpoints_bytes: int
    bytes: int
    """Of everything in its folder."""
    due: tuple[str, ...]
    """What somebody should do or wait for, each in a few words; empty: nothing."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "runs": [asdict(run) for run in self.runs], "due": list(self.due)}


def overview(url: str, now: datetime) -> list[DatasetOverview]:
    """Every dataset of the lake, by name. What cannot be read of one is among what is due of it."""
    return [_overview_of(Lake(url, name), now) for name in datasets(url)]


def _overview_of(lake: Lake, now: datetime) -> DatasetOverview:
    pictures, age_days, verified_at, changed_at, trained_at = None, None, "", "", ""
    runs: tuple[LastRun, ...] = ()
    try:
        scraped, curated, verified, decoder = (
            manifests.latest(lake, stage) for stage in ("scrape", "curate", "verify", "decoder")
        )
        if scraped is not None:
            changed_at = scraped.made_at
            age_days = round((now - datetime.fromisoformat(scraped.made_at)).total_seconds() / 86_400, 1)
        if curated is not None:
            pictures = curated.counts.out
        if verified is not None:
            verified_at = verified.made_at
        if decoder is not None:
            trained_at = decoder.made_at
        runs = _last_runs(trained_checkpoints(lake))
        to_do = _due(lake, verified, now)
    except (SpDataError, OSError) as error:
        # A training that goes on removes checkpoints while they are read.
        to_do = (str(error),)
    sizes, looked_at = _sizes_and_look(lake)
    of_checkpoints = {path: size for path, size in sizes.items() if re.match(r"runs/[^/]+/checkpoints/", path)}
    return DatasetOverview(
        name=lake.dataset,
        pictures=pictures,
        verified_at=verified_at,
        age_days=age_days,
        changed_at=changed_at,
        looked_at=looked_at,
        trained_at=trained_at,
        runs=runs,
        checkpoints=sum(path.endswith(f"/{RECORD}") for path in of_checkpoints),
        checkpoints_bytes=sum(of_checkpoints.values()),
        bytes=sum(sizes.values()),
        due=to_do,
    )


def _sizes_and_look(lake: Lake) -> tuple[dict[str, int], str]:
    """The sizes of all files and when the wiki was last asked, as far as they can be read."""
    try:
        return lake.everything(""), last_look(lake)
    except (SpDataError, OSError):
        return {}, ""


def _last_runs(checkpoints: Sequence[TrainedCheckpoint]) -> tuple[LastRun, ...]:
    """The newest run of each network, by name: the prior first."""
    newest: dict[str, TrainedCheckpoint] = {}
    for checkpoint in sorted(checkpoints, key=lambda checkpoint: (checkpoint.made_at, checkpoint.step)):
        newest[checkpoint.network] = checkpoint
    return tuple(LastRun(name, last.run, last.step, last.made_at) for name, last in sorted(newest.items()))


def _due(lake: Lake, verified: Manifest | None, now: datetime) -> tuple[str, ...]:
    recipe = recall_recipe(lake)
    if recipe is None:
        return ("it keeps no recipe: run it with the .yaml file that it was made with",)
    return (*_stale(recipe, lake), *_training(recipe, lake, verified, now))


def _stale(recipe: Recipe, lake: Lake) -> list[str]:
    """The first stage that is not done, which those after it wait for."""
    for status in stand(recipe, lake).values():
        if status.state != "done":
            reason = f" ({status.reason})" if status.reason else ""
            return [f"{status.name} is {status.state}{reason}: {lake.command('run')}"]
    return []


def _training(recipe: Recipe, lake: Lake, verified: Manifest | None, now: datetime) -> list[str]:
    repeated = [model.line(lake) for model in saw_forgotten(lake) if model.is_in_use]
    if verified is None:
        return repeated
    change = change_since_training(lake, verified)
    is_due, reason = due(recipe, change, now)
    is_wanted = decided(lake, "refused") != change.digest
    return [*repeated, *([f"fine-tuning: {reason}"] if is_due and is_wanted else [])]


HEADINGS = ("dataset", "pictures", "changed", "looked at", "trained", "checkpoints", "GB")
"""Of the cells of a dataset: `changed` is the dataset, `looked at` the wiki."""


def cells(row: DatasetOverview) -> tuple[str, ...]:
    """What a table shows of a dataset below HEADINGS. Times are days in UTC: a table may be read long after."""
    steps = ", ".join(f"{run.network} {run.step:,}" for run in row.runs)
    trained = max((run.made_at for run in row.runs), default="")[:10]
    size = f" ({row.checkpoints_bytes / 1e9:.2f} GB)" if row.checkpoints else ""
    return (
        row.name,
        "" if row.pictures is None else f"{row.pictures:,}",
        row.changed_at[:10],
        row.looked_at[:10],
        f"{trained}: {steps}" if trained else steps,
        f"{row.checkpoints:,}{size}",
        f"{row.bytes / 1e9:.2f}",
    )


def overview_markdown(rows: list[DatasetOverview]) -> str:
    """The same as a Markdown table, which says when it was made: it is read later."""
    lines = [
        f"## All datasets as of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"| {' | '.join(HEADINGS)} | due |",
        "|---|---:|---|---|---|---:|---:|---|",
    ]
    lines += [f"| {' | '.join(map(markdown, (*cells(row), '; '.join(row.due) or 'nothing')))} |" for row in rows]
    lines += [
        "",
        "Only a run that did something writes this table. *changed*: the dataset; *looked at*: the wiki, to within a",
        "day. The command `status --all` prints it as it is now.",
    ]
    return "\n".join(lines) + "\n"
