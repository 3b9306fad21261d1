"""The page as a whole: its tabs, its look, and the application that serves it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio import processing_utils
from gradio.themes.utils.fonts import Font
from starlette.responses import FileResponse

from sp_data.errors import SpDataError
from sp_data.foreign_text import html_text
from sp_data.ui import markup
from sp_data.ui.checkpoints import abilities, best_of_finished, chosen, known_checkpoints
from sp_data.ui.dataset import dataset_tab
from sp_data.ui.dream import dream_tab
from sp_data.ui.guard import Access, Guard
from sp_data.ui.inpaint import inpaint_tab
from sp_data.ui.lake_files import lake_routes
from sp_data.ui.pictures import taken
from sp_data.ui.runs import choice_dropdowns, runs_tab
from sp_data.ui.state import PageState
from sp_data.ui.variation import variation_tab
from sp_data.ui.wiring import HIDDEN, Page, html

STATIC = Path(__file__).parent / "static"
HEAD = """
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
"""
CACHE_S, CACHE_CHECK_S = 86_400, 3_600
"""Uploads are removed after a day."""


def build_page(state: PageState) -> gr.Blocks:
    checkpoints = known_checkpoints(state.lake)
    able = abilities(chosen(checkpoints, (), best_of_finished(state.lake)))
    with gr.Blocks(
        title=f"{state.lake.dataset} · sp-data", analytics_enabled=False, delete_cache=(CACHE_CHECK_S, CACHE_S)
    ) as blocks:
        html(_header(state), "sp-header")
        refused = html("", "sp-status-box")
        # Their place is the tab Runs, and all tabs read them.
        choices = choice_dropdowns(checkpoints)
        with gr.Tabs(selected="dream", elem_id="sp-tabs") as tabs:
            picked = gr.Textbox(visible="hidden", elem_id="sp-picked", max_length=1_000, render=False)
            page = Page(state, checkpoints, able, choices, picked, tabs)
            with gr.Tab("Dream", id="dream"):
                dream_tab(page)
            with gr.Tab("Variation", id="variation"):
                variation_picture = variation_tab(page)
            with gr.Tab("Inpaint", id="inpaint"):
                inpaint_picture = inpaint_tab(page)
            dataset_tab(page)
            runs_tab(page)
        picked.render()  # type: ignore[no-untyped-call]

        def pick(wanted: str) -> list[Any]:
            """'3 variation generated/NAME.png' -> the tab, and the picture in its field."""
            _, tab, path = [*str(wanted or "").split(" ", 2), "", ""][:3]
            try:
                picture = taken(state, path)
            except (SpDataError, OSError) as error:
                return [gr.skip(), gr.skip(), gr.skip(), markup.notice(str(error), "bad")]
            fields = [picture if tab == name else gr.skip() for name in ("variation", "inpaint")]
            return [gr.update(selected=tab), *fields, ""]

        picked.change(
            pick,
            picked,
            [tabs, variation_picture, inpaint_picture, refused],
            trigger_mode="multiple",
            **HIDDEN,
        )
        blocks.load(lambda *values: page.choice_updates(values), list(choices.values()), page.choice_outputs, **HIDDEN)

        def gone(request: gr.Request) -> None:
            state.cancel(str(request.session_hash))

        blocks.unload(gone)
    page_as_built: gr.Blocks = blocks
    return page_as_built


def _header(state: PageState) -> str:
    count = state.num_pictures()
    pictures = "not verified yet" if count is None else f"{count:,} pictures"
    return f"<h1>{html_text(state.lake.dataset)}</h1><p>{pictures}</p>"


def application(state: PageState, access: Access) -> Any:
    """The page, the files of the lake and the guard before them, as one ASGI application."""
    # Gradio would fetch what is given by an address instead of a file.
    processing_utils.async_ssrf_protected_download = _no_download
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(lake_routes(state))

    @app.get("/page.css")
    def css() -> FileResponse:
        return FileResponse(STATIC / "page.css", headers={"cache-control": "no-cache"})

    @app.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(STATIC / "page.js", media_type="text/javascript", headers={"cache-control": "no-cache"})

    blocks = build_page(state)
    # Gradio asks whether a path that a visitor names was uploaded only of a page that it has launched itself; one that
    # is mounted would hand out any file of this machine.
    blocks.has_launched = True
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size="50mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        allowed_paths=[],
        blocked_paths=[str(Path(state.lake.root))] if state.lake.is_local else [],
        theme=_theme(),
        favicon_path=str(STATIC / "favicon.png"),
        head=HEAD,
    )
    return Guard(app, access, uploads=state.folder)


async def _no_download(url: str, cache_dir: str) -> str:
    raise gr.Error("Give a file, not an address.", print_exception=False)


def _theme() -> gr.themes.Base:
    # Fonts of the reader's own system: Gradio's would be fetched from Google.
    sans = [Font(name) for name in ("system-ui", "sans-serif")]
    mono = [Font(name) for name in ("ui-monospace", "monospace")]
    look = {
        "body_background_fill": "var(--sp-paper)",
        "body_text_color": "var(--sp-ink)",
        "body_text_color_subdued": "var(--sp-soft)",
        "background_fill_primary": "var(--sp-card)",
        "background_fill_secondary": "var(--sp-hold)",
        "block_background_fill": "var(--sp-card)",
        "block_border_color": "var(--sp-line)",
        "block_info_text_color": "var(--sp-soft)",
        "block_label_background_fill": "var(--sp-card)",
        "block_label_text_color": "var(--sp-soft)",
        "block_title_text_color": "var(--sp-ink)",
        "border_color_primary": "var(--sp-line)",
        "border_color_accent": "var(--sp-accent)",
        "color_accent": "var(--sp-accent)",
        "input_background_fill": "var(--sp-paper)",
        "input_border_color": "var(--sp-line)",
        "input_placeholder_color": "var(--sp-soft)",
        "slider_color": "var(--sp-accent)",
        "button_primary_background_fill": "var(--sp-ink)",
        "button_primary_background_fill_hover": "var(--sp-accent)",
        "button_primary_text_color": "var(--sp-paper)",
        "button_secondary_background_fill": "var(--sp-hold)",
        "button_secondary_background_fill_hover": "var(--sp-line)",
        "button_secondary_text_color": "var(--sp-ink)",
    }
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=sans,
        font_mono=mono,
    )
    # page.css has the colours, light and dark.
    names = set(inspect.signature(base.set).parameters)
    return base.set(**look, **{f"{name}_dark": value for name, value in look.items() if f"{name}_dark" in names})
