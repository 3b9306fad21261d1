"""Visitors' pictures fill no disk: old ones go, and what does not fit is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sp_data.errors import UsageError
from sp_data.lake import Lake
from sp_data.recipe import load_recipe
from sp_data.ui import pictures
from sp_data.ui.guard import Access, Guard
from sp_data.ui.state import PageState
from sp_data.ui.uploads import MIN_FILE_BYTES, make_room


def _upload(folder: Path, name: str, age_s: float, num_bytes: int = MIN_FILE_BYTES) -> Path:
    path = folder / name / "picture.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * num_bytes)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_the_oldest_go_first_and_only_as_many_as_must(tmp_path: Path) -> None:
    oldest, older, newer = (_upload(tmp_path, str(age), age) for age in (5_000, 4_000, 3_000))
    assert make_room(tmp_path, MIN_FILE_BYTES, max_bytes=4 * MIN_FILE_BYTES)
    assert oldest.exists()
    assert make_room(tmp_path, MIN_FILE_BYTES, max_bytes=3 * MIN_FILE_BYTES)
    assert (oldest.parent.exists(), older.exists(), newer.exists()) == (False, True, True)


def test_what_was_given_just_now_stays(tmp_path: Path) -> None:
    old, new = _upload(tmp_path, "old", 5_000), _upload(tmp_path, "new", 10)
    assert not make_room(tmp_path, MIN_FILE_BYTES, max_bytes=MIN_FILE_BYTES)
    assert (old.exists(), new.exists()) == (False, True)


def test_many_small_files_count_as_large_ones(tmp_path: Path) -> None:
    for number in range(10):
        _upload(tmp_path, str(number), 10, num_bytes=1)
    assert not make_room(tmp_path, 1, max_bytes=10 * MIN_FILE_BYTES)
    assert make_room(tmp_path, 1, max_bytes=11 * MIN_FILE_BYTES)


def test_an_upload_is_refused_where_there_is_no_room(tmp_path: Path) -> None:
    async def upload(request: Request) -> Response:
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.png").write_bytes(await request.body())
        return PlainTextResponse("taken")

    app = Starlette(routes=[Route("/gradio_api/upload", upload, methods=["POST"])])
    guard = Guard(app, Access(None), max_body_bytes=400_000_000, uploads=tmp_path)
    client = TestClient(guard, base_url="http://127.0.0.1:7860")
    statuses = []
    for _ in range(8):
        statuses.append(client.post("/gradio_api/upload", content=b"x").status_code)
        (tmp_path / "filled.png").write_bytes(b"")
        os.truncate(tmp_path / "filled.png", 100_000_000 * len(statuses))
    assert statuses == [200] * 6 + [507] * 2
    answer = client.post("/gradio_api/upload", content=b"x")
    assert "in ten minutes" in answer.text


def test_a_picture_of_the_lake_is_no_way_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "lake"), "kids")
    lake.write_bytes("generated/a.png", b"x")
    state = PageState(load_recipe("demo"), lake, tmp_path / "uploads")
    assert Path(pictures.taken(state, "generated/a.png")).read_bytes() == b"x"
    monkeypatch.setattr(pictures, "make_room", lambda *_: False)
    with pytest.raises(UsageError, match="in ten minutes"):
        pictures.taken(state, "generated/a.png")
