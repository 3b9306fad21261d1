"""What an operator sees of a run: its name, its state, and one artifact that leads to everything else.

southpark · +3 −2          the run's name, once it ended
Changed: +3 −2             the state of a run that changed the dataset
Degraded: 12 quarantined   ... of one that could not get some pictures it should have got
Unchanged                  ... of one that found nothing to do
sp-data-overview           the artifact that an operator opens first: all datasets of the lake
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import State, get_client, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from sp_data import manifest as manifests
from sp_data.foreign_text import markdown_code
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.training.dataset_change import DatasetChange
from sp_data.upkeep.overview import overview, overview_markdown
from sp_data.wiki.refusals import CUT_OFF, HOST_REFUSES, REFUSED, SHA1_MISMATCH, UNREACHABLE
from tasks.reference import PipelineReference, StageReference
from tasks.stage import artifact_key

log = logging.getLogger("sp_data.tasks")

OVERVIEW = "sp-data-overview"
"""Key of the artifact with all datasets of the lake, of the newest run that did something."""
COMPLETED = ("Completed", "Unchanged", "Changed: *", "Degraded: *", "Done: *", "Not approved")
"""Names, as glob patterns, of the states in which a run of ours ends well. Prefect's events are called by them."""
QUARANTINED = (CUT_OFF, SHA1_MISMATCH, UNREACHABLE, REFUSED, HOST_REFUSES)
"""Reasons of pictures that are on the wiki and could not be had, beside its HTTP errors."""


def ended(
    lake: Lake, stages: Sequence[StageReference], report: str, change: DatasetChange | None, *, note: str = ""
) -> State[PipelineReference]:
    """The final state of a run of stages, whose result is the reference to them. Names the run and shows its summary.

    `change`: what came and went; None: the dataset is as it was before the run. `note`: a sentence for the summary.
    """
    result = PipelineReference(stages=tuple(stages), report=report)
    is_changed = any(stage.state == "done" for stage in stages)
    scraped = any(stage.name == "scrape" and stage.state == "done" for stage in stages)
    num_quarantined = _num_quarantined(lake) if scraped else 0
    if not is_changed:
        state, short = "Unchanged", "unchanged"
    elif num_quarantined:
        state, short = f"Degraded: {num_quarantined:,} quarantined", f"{change or 'no new dataset'}"
    elif change is not None:
        state, short = f"Changed: {change}", f"{change}"
    else:
        trained = [stage.name for stage in stages if stage.state == "done"]
        state, short = f"Done: {', '.join(trained)}", ", ".join(trained)
    name = f"{lake.dataset} · {short}"
    name_run(name)
    if is_changed:
        create_markdown_artifact(
            key=artifact_key(lake.dataset, "summary"),
            markdown=summary_markdown(lake, stages, report, state, note),
            description=name,
        )
        create_markdown_artifact(
            key=OVERVIEW,
            markdown=overview_markdown(overview(lake.url, datetime.now(UTC))),
            description=f"Every dataset of the lake {markdown_code(lake.url)}: how old, how large, and what is due",
        )
    return Completed(name=state, message=note or name, data=result)


def name_run(name: str) -> None:
    """Call this flow run so from now on."""
    if runtime.flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, name=name)


def summary_markdown(lake: Lake, stages: Sequence[StageReference], report: str, state: str, note: str) -> str:
    """The stages of a run with links to what each of them shows."""
    lines = [
        f"## {lake.dataset}: {state}",
        "",
        *([note, ""] if note else []),
        "| stage | | in | out | dropped | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for stage in stages:
        shown = f"[{stage.name}](/artifacts/key/{artifact_key(lake.dataset, stage.name)})"
        lines.append(
            f"| {shown} | {stage.state} | {stage.in_:,} | {stage.out:,} | {stage.dropped:,} | {stage.seconds:.1f} |"
        )
    lines += [
        "",
        f"Report: [{report}](/artifacts/key/{artifact_key(lake.dataset, 'report')}), which {lake.command('ui')} serves",
    ]
    return "\n".join(lines) + "\n"


def _num_quarantined(lake: Lake) -> int:
    """Pictures that should have come and did not: another run asks for them again."""
    scraped: Manifest | None = manifests.latest(lake, "scrape")
    if scraped is None:
        return 0
    return sum(
        count for reason, count in scraped.counts.dropped.items() if reason in QUARANTINED or reason.startswith("http-")
    )
