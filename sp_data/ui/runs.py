"""The tab that shows the trainings: their checkpoints, losses and grids, which of them draw, and the reports."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import gradio as gr

from sp_data.errors import SpDataError
from sp_data.foreign_text import html_text
from sp_data.lake import Lake
from sp_data.report.chart import line_chart
from sp_data.training.grid import grid_path
from sp_data.training.loop.metrics import read_metrics
from sp_data.training.trained import runs_in_progress
from sp_data.ui import markup
from sp_data.ui.checkpoints import BEST, KnownCheckpoint, best_of_finished, known_checkpoints
from sp_data.ui.lake_files import REPORTS
from sp_data.ui.wiring import HIDDEN, NETWORKS, Page, html

REPORTS_AT = "lake/reports"
MAX_POINTS = 400
MAX_REPORTS = 50


def choices_of(network: str, checkpoints: Iterable[KnownCheckpoint]) -> list[tuple[str, str]]:
    """(what is shown, folder or best) of the checkpoints of one network."""
    own = [checkpoint for checkpoint in checkpoints if checkpoint.network == network]
    return [("the best", BEST), *((str(one), one.folder) for one in own)]


def choice_dropdowns(checkpoints: Sequence[KnownCheckpoint]) -> dict[str, gr.Dropdown]:
    """A dropdown a network, to be rendered by `runs_tab`."""
    return {
        network: gr.Dropdown(
            choices_of(network, checkpoints),
            value=BEST,
            label=network.capitalize(),
            elem_id=f"runs-{network.replace(' ', '')}",
            visible=any(checkpoint.network == network for checkpoint in checkpoints),
            filterable=False,
            render=False,
        )
        for network in NETWORKS
    }


def runs_tab(page: Page) -> None:
    lake = page.state.lake
    with gr.Tab("Runs", id="runs") as tab:
        html('<h2 class="sp-runs-head">Draw with</h2>')
        with gr.Row(elem_classes="sp-choices"):
            for dropdown in page.choices.values():
                dropdown.render()  # type: ignore[no-untyped-call]
        runs = html("", "sp-runs")
    dropdowns = list(page.choices.values())

    def refreshed(*values: str) -> list[Any]:
        checkpoints = known_checkpoints(lake)
        folders = {checkpoint.folder for checkpoint in checkpoints}
        updates = []
        for network, value in zip(page.choices, values, strict=True):
            choices = choices_of(network, checkpoints)
            # What has vanished is still named, so that drawing says so instead of drawing with another.
            if value != BEST and value not in folders:
                choices.append((f"{value} (gone)", value))
            updates.append(gr.update(choices=choices, visible=len(choices) > 1))
        return [runs_html(lake, checkpoints), *updates]

    tab.select(refreshed, dropdowns, [runs, *dropdowns], **HIDDEN)

    def rechosen(*values: str) -> list[Any]:
        return page.choice_updates(values)

    gr.on([dropdown.input for dropdown in dropdowns], rechosen, dropdowns, page.choice_outputs, **HIDDEN)


def runs_html(lake: Lake, checkpoints: Sequence[KnownCheckpoint]) -> str:
    best = set(best_of_finished(lake))
    in_progress = runs_in_progress(lake)
    notes = (
        [markup.notice(f"Being trained now: {', '.join(in_progress)}; drawing is slower meanwhile")]
        if in_progress
        else []
    )
    trained = [checkpoint for checkpoint in checkpoints if not checkpoint.is_adopted]
    by_run = itertools.groupby(trained, key=lambda checkpoint: (checkpoint.network, checkpoint.run))
    sections = [_run(lake, network, run, list(of_run), best) for (network, run), of_run in by_run]
    if not sections:
        sections = [markup.notice(f"No checkpoints yet: {lake.command('run')} trains the models")]
    return "".join([*notes, *sections, _reports(lake)])


def _run(lake: Lake, network: str, run: str, checkpoints: Sequence[KnownCheckpoint], best: set[str]) -> str:
    rows = "".join(_row(checkpoint, is_best=checkpoint.folder in best) for checkpoint in checkpoints)
    grid = ""
    if lake.exists(grid_path(run)):
        address = f"lake/grids/{quote(run)}.png"
        grid = (
            f'<figure class="sp-grid"><a href="{html_text(address)}" target="_blank">'
            f'<img src="{html_text(address)}" alt="What the checkpoints of {html_text(run)} draw" loading="lazy"></a>'
            "<figcaption>Real pictures above; below them, by step, what the checkpoints draw from the same noise."
            "</figcaption></figure>"
        )
    table = (
        '<div class="sp-table"><table><thead><tr><th>step</th><th>loss</th><th>validation</th><th>saved</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    numbers = f"<div>{table}{_chart(lake, run)}</div>" if grid else f"{table}{_chart(lake, run)}"
    return (
        f'<section class="sp-run"><h2>{html_text(network.capitalize())} <small>{html_text(run)}, dataset '
        f"{html_text(checkpoints[0].dataset[:12])}</small></h2>"
        f'<div class="sp-run-parts">{numbers}{grid}</div></section>'
    )


def _row(checkpoint: KnownCheckpoint, *, is_best: bool) -> str:
    loss, validation = ("" if value is None else f"{value:.4f}" for value in (checkpoint.loss, checkpoint.val_loss))
    saved = html_text(checkpoint.made_at[:16].replace("T", " "))
    best = "<b>best</b> " if is_best else ""
    return f"<tr><td>{best}{checkpoint.step:,}</td><td>{loss}</td><td>{validation}</td><td>{saved}</td></tr>"


def _chart(lake: Lake, run: str) -> str:
    try:
        rows = read_metrics(lake, run)
    except SpDataError as error:
        return markup.notice(str(error), "bad")
    curves = {}
    for label, name in (("training", "loss"), ("validation", "val_loss")):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        curves[label] = points[:: max(1, len(points) // MAX_POINTS)]
    chart = line_chart(curves)
    return f'<figure class="sp-chart">{chart}<figcaption>Loss by step.</figcaption></figure>' if chart else ""


def _reports(lake: Lake) -> str:
    names = [path.removeprefix(f"{REPORTS}/") for path in lake.list(REPORTS) if path.endswith(".html")]
    if not names:
        return ""
    items = "".join(
        f'<li><a href="{REPORTS_AT}/{html_text(quote(name))}" target="_blank">{html_text(name)}</a></li>'
        for name in sorted(names)[:MAX_REPORTS]
    )
    return f'<section class="sp-run"><h2>Reports</h2><ul class="sp-reports">{items}</ul></section>'
