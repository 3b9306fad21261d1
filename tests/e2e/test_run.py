"""The whole pipeline as a user starts it: one command, a fresh Prefect home, then a real Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.prefect_api import post, run_demo

from sp_data.pipeline import DATASET_STAGES, STAGES


def test_one_command_leads_from_a_wiki_to_judged_pictures(first_run: tuple[dict[str, Any], Path]) -> None:
    result, _ = first_run
    assert result["dataset"] == "demo"
    assert [stage["name"] for stage in result["stages"]] == list(STAGES)
    assert {stage["state"] for stage in result["stages"]} == {"done"}
    for stage in result["stages"]:
        assert stage["in"] == stage["out"] + stage["dropped"]
    assert next(stage["out"] for stage in result["stages"] if stage["name"] == "verify") >= 95
    assert result["judge"]["n"] == 4
    assert result["judge"]["chance"] == 0.125
    assert 0 <= result["judge"]["coat"] <= 1
    assert 0 <= result["judge"]["hat"] <= 1


def test_the_page_of_a_run_tells_all_of_it(first_run: tuple[dict[str, Any], Path]) -> None:
    result, lake = first_run
    page = Path(result["report"]).read_text("utf-8")
    assert Path(result["report"]).is_relative_to(lake)
    for reason in ("cut-off", "near-duplicate", "opted-out", "mime-not-wanted (image/svg+xml)"):
        assert reason in page
    assert page.count('class="drawn"') == 4
    assert "http:" not in page.replace("http://www.w3.org", "").replace("http://paper-kids.localhost", "")
    assert "https:" not in page


def test_a_server_shows_an_artifact_a_stage_with_counts_and_pictures(
    server: str, first_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    first, lake = first_run
    # Other tests use this server too.
    before = {run["id"] for run in post(server, "/flow_runs/filter", {})}
    result = run_demo(lake, tmp_path, PREFECT_API_URL=server)
    assert {stage["state"] for stage in result["stages"]} == {"unchanged"}
    assert result["judge"] == first["judge"]
    assert result["report"] == first["report"]
    runs = [run for run in post(server, "/flow_runs/filter", {}) if run["id"] not in before]
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"] * 3, "pipeline, dataset, finetune"
    of_runs = {"artifacts": {"flow_run_id": {"any_": [run["id"] for run in runs]}}}
    artifacts = {artifact["key"]: artifact for artifact in post(server, "/artifacts/filter", of_runs)}
    assert artifacts.keys() >= {f"demo-{stage}" for stage in STAGES} | {"demo-report"}
    for stage in STAGES:
        markdown = artifacts[f"demo-{stage}"]["data"]
        counts = next(entry for entry in result["stages"] if entry["name"] == stage)
        assert f"| {counts['in']:,} | {counts['out']:,} | {counts['dropped']:,} |" in markdown
        # The prior makes embeddings, not pictures.
        assert ("](data:image/jpeg;base64," in markdown) == (stage != "prior")
        assert len(markdown) < 400_000
    assert "| best | 12 |" in artifacts["demo-decoder"]["data"]
    logs = post(server, "/logs/filter", {"limit": 200})
    assert any("scrape" in line["name"] for line in logs), "the library's own lines are in the run's log"
    assert {stage["name"] for stage in result["stages"]} > set(DATASET_STAGES)
