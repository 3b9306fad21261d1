"""The run's report: one self-contained HTML page. What the models draw, how training went, what was kept, what was
dropped, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.report import samples
from sp_data.report.samples import Shown
from sp_data.runtime.contact_sheet import data_uri, jpeg

if TYPE_CHECKING:
    from sp_data.generation.gallery import Piece

NUM_KEPT = 60
NUM_DROPPED_A_REASON = 12
NUM_REFUSED = 200


@dataclass(frozen=True, slots=True)
class StageLine:
    """A row of the page's first table."""

    name: str
    counts_in: int
    counts_out: int
    dropped: dict[str, int]
    digest: str
    made_at: str
    num_bytes: int


def write_report(recipe: Recipe, lake: Lake, road: dict[str, Manifest]) -> str:
    """Publish the page for these manifests and return its path in the lake; one that is there already is kept.

    Where there is a decoder its pictures are shown; those that the judge did not ask for are made now.
    """
    last = list(road.values())[-1]
    shown = digest_of({stage: made.digest for stage, made in road.items()})
    path = f"reports/{last.stage}-{shown[:16]}.html"
    with lake.writer("reports"):
        if not lake.exists(path):
            pieces = _gallery(recipe, lake, road) if {"prior", "decoder"} <= road.keys() else []
            lake.write_bytes(path, render(lake, road, pieces).encode("utf-8"))
    return path


def _gallery(recipe: Recipe, lake: Lake, road: dict[str, Manifest]) -> list[Piece]:
    # Imported late: a page about a dataset needs no torch.
    from sp_data.generation.gallery import gallery

    return gallery(recipe, lake, road)


def render(lake: Lake, road: dict[str, Manifest], pieces: list[Piece]) -> str:
    """The page as text; it needs nothing beside it. `pieces` is the gallery of what the models draw."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sp_data.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    curated, judged = road.get("curate"), road.get("judge")
    trained = any(kind in road for kind in ("prior", "decoder"))
    if trained:
        from sp_data.report import training
    return environment.get_template("report.html.j2").render(
        dataset=lake.dataset,
        stages=[_line(manifest) for manifest in road.values()],
        lost=_lost(road),
        refused=[_card(one) for one in samples.refused(lake, road["scrape"])[:NUM_REFUSED]] if "scrape" in road else [],
        kept=[_card(one) for one in samples.kept(lake, curated, NUM_KEPT)] if curated else [],
        num_kept=curated.counts.out if curated else 0,
        dropped=[_card(one) for one in samples.dropped(lake, curated, NUM_DROPPED_A_REASON)] if curated else [],
        dropped_counts=curated.counts.dropped if curated else {},
        splits=curated.details["splits"] if curated else {},
        trainings=training.trainings(lake, road) if trained else [],
        gallery=training.cards(lake, pieces, judged) if pieces else [],
        judged=judged.details if judged else None,
        picture_lineage=training.lineage(pieces, road) if pieces else [],
        lineage=[(manifest.stage, manifest.inputs, manifest.versions) for manifest in road.values()],
    )


def _line(manifest: Manifest) -> StageLine:
    return StageLine(
        manifest.stage,
        manifest.counts.in_,
        manifest.counts.out,
        manifest.counts.dropped,
        manifest.digest,
        manifest.made_at,
        manifest.num_bytes,
    )


def _lost(road: dict[str, Manifest]) -> list[tuple[str, str, int]]:
    """(stage, reason, how many) of everything that was dropped on the way."""
    return [
        (manifest.stage, reason, count)
        for manifest in road.values()
        for reason, count in sorted(manifest.counts.dropped.items())
    ]


def _card(one: Shown) -> dict[str, Any]:
    return {
        "picture": data_uri(jpeg(one.picture, 80)) if one.picture is not None else "",
        "title": one.title,
        "line": one.line,
        "url": one.url,
        "group": one.group,
    }


def load_manifests(lake: Lake, stages: tuple[str, ...]) -> dict[str, Manifest]:
    """The newest manifest of each stage, as far as there is one."""
    found = {stage: manifests.latest(lake, stage) for stage in stages}
    return {stage: manifest for stage, manifest in found.items() if manifest is not None}
