"""Stages run from a source or settings alone; `run_stage` takes a whole recipe."""

from __future__ import annotations

from typing import Any

from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import run_stage, stage_run
from sp_data.recipe import Curate, Recipe, Source
from sp_data.stage import StageResult


def scrape(source: Source, lake: Lake, **options: Any) -> StageResult:
    """Scrape this source into a lake; `options` as `run_stage` takes them."""
    return run_stage("scrape", Recipe(name=lake.dataset, source=source), lake, **options)


def curate(scraped: Manifest, settings: Curate, lake: Lake) -> StageResult:
    """Curate a catalogue that no scrape made."""
    from sp_data.dataset.curate.stage import curate as curate_stage

    recipe = Recipe(name=lake.dataset, source=Source(wiki="http://kids.localhost"), curate=settings)
    return curate_stage(stage_run("curate", recipe, lake, {"scrape": scraped}))
