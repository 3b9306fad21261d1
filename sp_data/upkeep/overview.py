"""All datasets of a lake at a glance: how old, how large, what was trained, and what is due.

overview("./lake", now)    # [DatasetOverview(name='southpark', pictures=715, age_days=2.1, …, due=('…',))]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
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
from sp_data.training.seen import saw_forgotten


@dataclass(frozen=True, slots=True)
class DatasetOverview:
    """One dataset. Times are ISO 8601, empty where there is none."""

    name: str
    pictures: int | None
    """That are kept, in the newest tables; None: there are none."""
    verified_at: str
    age_days: float | None
    """Of the newest catalogue: since the wiki was last found to be another."""
    trained_at: str
    """When the newest decoder was trained."""
    bytes: int
    """Of everything in its folder."""
    due: tuple[str, ...]
    """What somebody should do or wait for, each in a few words; empty: nothing."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "due": list(self.due)}


def overview(url: str, now: datetime) -> list[DatasetOverview]:
    """Every dataset of the lake, by name. What cannot be read of one is among what is due of it."""
    return [_overview_of(Lake(url, name), now) for name in datasets(url)]


def _overview_of(lake: Lake, now: datetime) -> DatasetOverview:
    pictures, age_days, verified_at, trained_at = None, None, "", ""
    try:
        scraped, curated, verified, decoder = (
            manifests.latest(lake, stage) for stage in ("scrape", "curate", "verify", "decoder")
        )
        if scraped is not None:
            age_days = round((now - datetime.fromisoformat(scraped.made_at)).total_seconds() / 86_400, 1)
        if curated is not None:
            pictures = curated.counts.out
        if verified is not None:
            verified_at = verified.made_at
        if decoder is not None:
            trained_at = decoder.made_at
        to_do = _due(lake, verified, now)
    except SpDataError as error:
        to_do = (str(error),)
    return DatasetOverview(
        lake.dataset, pictures, verified_at, age_days, trained_at, sum(lake.everything("").values()), to_do
    )


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
    is_due, reason = due(recipe, change_since_training(lake, verified), now)
    return [*repeated, *([f"fine-tuning: {reason}"] if is_due else [])]


def overview_markdown(rows: list[DatasetOverview]) -> str:
    """The same as a Markdown table."""
    lines = [
        "## All datasets",
        "",
        "| dataset | pictures | catalogue, days old | trained at | GB | due |",
        "|---|---:|---:|---|---:|---|",
    ]
    for row in rows:
        pictures = "" if row.pictures is None else f"{row.pictures:,}"
        age = "" if row.age_days is None else f"{row.age_days:.1f}"
        cells = (row.name, pictures, age, row.trained_at[:16].replace("T", " "), f"{row.bytes / 1e9:.2f}")
        lines.append(f"| {' | '.join(map(markdown, cells))} | {markdown('; '.join(row.due) or 'nothing')} |")
    return "\n".join(lines) + "\n"
