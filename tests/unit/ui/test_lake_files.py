"""Files of the lake that the page serves: those of a few folders, and no path out of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sp_data.lake import Lake
from sp_data.recipe import load_recipe
from sp_data.ui.lake_files import lake_routes
from sp_data.ui.state import PageState


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    lake = Lake(str(tmp_path / "lake"), "kids")
    for path in (
        "generated/ein-mädchen-seed-7-1f0c.png",
        "generated/sheet-1f0c.jpg",
        "generated/.hidden.png",
        "generated/a.json",
        "reports/judge-4fe9.html",
        "runs/unet1/samples/grid.png",
        "recipe.json",
    ):
        lake.write_bytes(path, path.encode())
    (tmp_path / "outside.png").write_bytes(b"outside")
    app = FastAPI()
    app.include_router(lake_routes(PageState(load_recipe("demo"), lake, tmp_path)))
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("generated/ein-mädchen-seed-7-1f0c.png", "image/png"),
        ("generated/sheet-1f0c.jpg", "image/jpeg"),
        ("reports/judge-4fe9.html", "text/html; charset=utf-8"),
    ],
)
def test_pictures_and_reports_are_served(client: TestClient, path: str, media: str) -> None:
    answer = client.get(f"/lake/{path}")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, path, media)
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "allow-scripts" not in answer.headers["content-security-policy"]


def test_a_run_s_grid_is_served(client: TestClient) -> None:
    assert client.get("/lake/grids/unet1.png").text == "runs/unet1/samples/grid.png"
    assert client.get("/lake/grids/unet2.png").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "generated/..%2frecipe.json",
        "generated/%2e%2e%2f%2e%2e%2foutside.png",
        "generated/..",
        "generated/.hidden.png",
        "generated/a.json",
        "generated/a%00.png",
        "generated/gone.png",
        "reports/..%2frecipe.json",
        "reports/judge-4fe9.png",
        "grids/..%2f..%2frecipe.png",
        "grids/...png",
        "pictures/000000001.jpg",
        "recipe.json",
    ],
)
def test_nothing_else_is(client: TestClient, path: str) -> None:
    assert client.get(f"/lake/{path}").status_code == 404


def test_nothing_is_written(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/lake/generated/sheet-1f0c.jpg").status_code == 405
