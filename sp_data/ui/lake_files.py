"""Files of the lake that the page serves, to be read and no more. Prefect's artifacts link to them too.

    /lake/generated/NAME.png     pictures that were drawn
    /lake/reports/NAME.html      reports, without the right to run a script
    /lake/pictures/KEY.jpg       pictures of the dataset that can be found: no tombstones, nothing forgotten
    /lake/grids/RUN.png          what the checkpoints of a run draw

A name is that of one file in one folder: no path can be made of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from sp_data.errors import SpDataError
from sp_data.generation.files import GENERATED
from sp_data.lake import Lake

if TYPE_CHECKING:
    from sp_data.ui.state import PageState

NAME = re.compile(r"[\w][\w.() -]*")
"""The first character is no dot: such files are not published."""
MEDIA = {"png": "image/png", "jpg": "image/jpeg", "html": "text/html; charset=utf-8"}
SANDBOX = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox allow-popups"
PICTURE = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; sandbox"
REPORTS = "reports"


def generated_picture(lake: Lake, name: str) -> bytes | None:
    return _read(lake, GENERATED, name, ("png", "jpg"))


def report(lake: Lake, name: str) -> bytes | None:
    return _read(lake, REPORTS, name, ("html",))


def dataset_picture(state: PageState, key: str) -> bytes | None:
    try:
        return state.index().thumbnail(key)
    except SpDataError:
        return None


def lake_routes(state: PageState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/lake/generated/{name}")
    def generated(name: str) -> Response:
        return _answer(generated_picture(state.lake, name), name, PICTURE)

    @routes.get("/lake/reports/{name}")
    def reports(name: str) -> Response:
        return _answer(report(state.lake, name), name, SANDBOX)

    @routes.get("/lake/pictures/{key}.jpg")
    def pictures(key: str) -> Response:
        return _answer(dataset_picture(state, key), f"{key}.jpg", PICTURE)

    @routes.get("/lake/grids/{run}.png")
    def grids(run: str) -> Response:
        return _answer(grid(state.lake, run), f"{run}.png", PICTURE)

    return routes


def grid(lake: Lake, run: str) -> bytes | None:
    from sp_data.training.grid import grid_path

    return _file(lake, grid_path(run)) if NAME.fullmatch(run) else None


def _read(lake: Lake, folder: str, name: str, endings: tuple[str, ...]) -> bytes | None:
    if not NAME.fullmatch(name) or name.rpartition(".")[2] not in endings:
        return None
    return _file(lake, f"{folder}/{name}")


def _file(lake: Lake, path: str) -> bytes | None:
    try:
        return lake.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        return None


def _answer(data: bytes | None, name: str, policy: str) -> Response:
    if data is None:
        return PlainTextResponse(f"There is no {name} here.", 404)
    headers = {"content-security-policy": policy, "cache-control": "private, no-cache"}
    return Response(data, media_type=MEDIA[name.rpartition(".")[2]], headers=headers)
