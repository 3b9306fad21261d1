"""The run's report: one self-contained HTML page that shows what the models draw, how training went, what was kept, and
what was dropped and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from sp_data import manifest as manifests
from sp_data.canonical import digest_of
from sp_data.foreign_text import is_web_address, one_line
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


def write_report(recipe: Recipe, lake: Lake, by_stage: dict[str, Manifest]) -> str:
    """Publish the page for these manifests and return its path in the lake; an existing page is kept.

    If the decoder is trained, the page shows its pictures; those that the judge did not ask for are made now.
    """
    last = list(by_stage.values())[-1]
    digest = digest_of({stage: manifest.digest for stage, manifest in by_stage.items()})
    path = f"reports/{last.stage}-{digest[:16]}.html"
    with lake.writer("reports"):
        if not lake.exists(path):
            pieces = _gallery(recipe, lake, by_stage) if {"prior", "decoder"} <= by_stage.keys() else []
            lake.write_bytes(path, render(lake, by_stage, pieces).encode("utf-8"))
    return path


def _gallery(recipe: Recipe, lake: Lake, by_stage: dict[str, Manifest]) -> list[Piece]:
    # Imported late: a page about a dataset needs no torch.
    from sp_data.generation.gallery import gallery

    return gallery(recipe, lake, by_stage)


def render(lake: Lake, by_stage: dict[str, Manifest], pieces: list[Piece]) -> str:
    """The page as text; it refers to no other file. `pieces` is the gallery of what the models draw."""
    environment = _environment()
    scraped, curated, judged = by_stage.get("scrape"), by_stage.get("curate"), by_stage.get("judge")
    trained = any(kind in by_stage for kind in ("prior", "decoder"))
    if trained:
        from sp_data.report import training
    return environment.get_template("report.html.j2").render(
        dataset=lake.dataset,
        stages=[_line(manifest) for manifest in by_stage.values()],
        drops=_drops(by_stage),
        refused=[_card(shown) for shown in samples.refused(lake, scraped)[:NUM_REFUSED]] if scraped else [],
        kept=[_card(shown) for shown in samples.kept(lake, curated, NUM_KEPT)] if curated else [],
        num_kept=curated.counts.out if curated else 0,
        dropped=[_card(shown) for shown in samples.dropped(lake, curated, NUM_DROPPED_A_REASON)] if curated else [],
        dropped_counts=curated.counts.dropped if curated else {},
        splits=curated.details["splits"] if curated else {},
        trainings=training.trainings(lake, by_stage) if trained else [],
        verdicts=training.verdicts(by_stage) if trained else [],
        gallery=training.cards(lake, pieces, judged) if pieces else [],
        judged=judged.details if judged else None,
        picture_lineage=training.lineage(pieces, by_stage) if pieces else [],
        lineage=[(manifest.stage, manifest.inputs, manifest.versions) for manifest in by_stage.values()],
    )


def _environment() -> jinja2.Environment:
    """Everything is escaped, without control characters; only a web address becomes a link (`is web_address`)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sp_data.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.tests["web_address"] = is_web_address
    return environment


def _shown(value: Any) -> Any:
    # Markup is of our own making: the charts, and the template's own text.
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


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


def _drops(by_stage: dict[str, Manifest]) -> list[tuple[str, str, int]]:
    """(stage, reason, number of pictures) of everything that the stages dropped."""
    return [
        (manifest.stage, reason, count)
        for manifest in by_stage.values()
        for reason, count in sorted(manifest.counts.dropped.items())
    ]


def _card(shown: Shown) -> dict[str, Any]:
    return {
        "picture": data_uri(jpeg(shown.picture, 80)) if shown.picture is not None else "",
        "title": shown.title,
        "line": shown.line,
        "url": shown.url,
        "group": shown.group,
    }


def load_manifests(lake: Lake, stages: tuple[str, ...]) -> dict[str, Manifest]:
    """The newest manifest of each stage that has one."""
    newest = {stage: manifests.latest(lake, stage) for stage in stages}
    return {stage: manifest for stage, manifest in newest.items() if manifest is not None}
