"""`sp-data status --all`: what an operator looks at first."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sp_data.cli.app import main
from sp_data.kept_recipe import RECIPE_FILE, remember_recipe
from sp_data.lake import Lake
from sp_data.recipe import Recipe, load_recipe
from sp_data.upkeep.overview import HEADINGS, cells, overview, overview_markdown

from .conftest import checkpoint


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
    due = [line for line in table.splitlines() if line.startswith("due of ")]
    assert any(line.startswith("due of begun: scrape is") and line.endswith(f"--lake {url}`") for line in due), due


def test_a_dataset_says_when_its_wiki_was_looked_at_and_what_was_trained_last(lake_copy: Lake) -> None:
    now = datetime.now(UTC)
    (before,) = overview(lake_copy.url, now)
    assert (before.runs, before.checkpoints, before.checkpoints_bytes) == ((), 0, 0)
    looked_at = datetime.fromisoformat(before.looked_at)
    changed_at = datetime.fromisoformat(before.changed_at)
    assert abs(looked_at - changed_at) < timedelta(minutes=5), "the scrape that found the change"
    for run, unet, step, made_at in (
        ("prior-old", None, 900, "2026-01-01T00:00:00+00:00"),
        ("prior-new", None, 400, "2026-02-01T00:00:00+00:00"),
        ("decoder-unet1-new", 1, 1000, "2026-02-02T00:00:00+00:00"),
        ("decoder-unet1-new", 1, 2000, "2026-02-03T00:00:00+00:00"),
    ):
        folder = checkpoint(lake_copy, run, "3f2a", step)
        record = json.loads(lake_copy.read_bytes(f"{folder}/checkpoint.json"))
        lake_copy.write_bytes(
            f"{folder}/checkpoint.json", json.dumps({**record, "unet": unet, "made_at": made_at}).encode()
        )
        lake_copy.write_bytes(f"{folder}/weights.safetensors", bytes(5_000_000))
    (after,) = overview(lake_copy.url, now)
    assert [(run.network, run.run, run.step, run.made_at[:10]) for run in after.runs] == [
        ("prior", "prior-new", 400, "2026-02-01"),
        ("unet1", "decoder-unet1-new", 2000, "2026-02-03"),
    ]
    assert after.checkpoints == 4
    assert 20_000_000 < after.checkpoints_bytes < 20_010_000
    row = dict(zip(HEADINGS, cells(after), strict=True))
    assert row["trained"] == "2026-02-03: prior 400, unet1 2,000"
    assert row["checkpoints"] == "4 (0.02 GB)"
    assert (row["changed"], row["looked at"]) == (before.changed_at[:10], before.looked_at[:10])


def test_the_markdown_says_when_it_was_made(lake_copy: Lake) -> None:
    rows = overview(lake_copy.url, datetime.now(UTC))
    text = overview_markdown(rows)
    found = re.match(r"## All datasets as of (.*) UTC\n", text)
    assert found
    made_at = datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=2)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert len({len(re.findall(r"(?<!\\\\)\|", line)) for line in table}) == 1, "as many cells in each row"
