"""`sp-data status --all`: what an operator looks at first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sp_data.cli.app import main
from sp_data.kept_recipe import RECIPE_FILE, remember_recipe
from sp_data.lake import Lake
from sp_data.recipe import Recipe, load_recipe


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr("sys.argv", ["sp-data", "status", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_each_dataset_has_a_line_with_what_is_due(
    lake_copy: Lake, demo_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = lake_copy.url
    begun = Lake(url, "begun")
    remember_recipe(load_recipe("demo", ["name=begun"]), begun)
    begun.write_bytes("manifests/scrape/latest.json", lake_copy.read_bytes("manifests/scrape/latest.json"))
    Path(Lake(url, "odd").full("manifests/scrape")).mkdir(parents=True)
    Lake(url, "odd").write_bytes("manifests/scrape/latest.json", b"{")
    Lake(url, "odd").write_bytes(RECIPE_FILE, b"{}")
    found = {
        row["name"]: row for row in json.loads(shown(monkeypatch, capsys, "--all", "--json", "--lake", url))["datasets"]
    }
    assert found.keys() == {"begun", "demo", "odd"}
    demo = found["demo"]
    assert demo["pictures"] > 90
    assert 0 <= demo["age_days"] < 2
    assert demo["bytes"] > 1_000_000
    assert [line.partition(":")[0] for line in demo["due"]] == ["prior is missing", "fine-tuning"]
    assert "scrape is" in found["begun"]["due"][0]
    assert "is not a valid manifest" in found["odd"]["due"][0]
    table = shown(monkeypatch, capsys, "--all", "--lake", url)
    assert all(name in table for name in found)
