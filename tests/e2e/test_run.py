"""The whole pipeline as a user starts it: one command, a fresh Prefect home, then a real Prefect server."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

from e2e.prefect_api import BIN, environment, post, run_demo, wait_for
from PIL import Image
from pytest_httpserver import HTTPServer

from sp_data.pipeline import DATASET_STAGES, STAGES, TRAINING_STAGES


def run_on(server: str, lake: Path) -> dict[str, Any]:
    """The server's only run of the command on a lake; the server is shared with other tests, their schedules too."""
    by_hand = {"flow_runs": {"deployment_id": {"is_null_": True}}, "sort": "START_TIME_DESC"}
    found = post(server, "/flow_runs/filter", by_hand)
    (run,) = [run for run in found if run["parameters"].get("lake") == str(lake)]
    return dict(run)


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


def test_where_nothing_changed_prefect_is_not_started(first_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    first, lake = first_run
    # No server answers there, and a run that needed one would say so.
    result = run_demo(lake, tmp_path / "home", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert {stage["state"] for stage in result["stages"]} == {"unchanged"}
    assert result["judge"] == first["judge"]
    assert result["report"] == first["report"]
    assert not (tmp_path / "home").exists(), "Prefect was not even imported"


def test_a_server_shows_what_a_run_made_and_a_summary_of_all(
    server: str, first_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, lake = first_run
    result = run_demo(lake, tmp_path, "decoder.steps=16", PREFECT_API_URL=server)
    made = [stage["name"] for stage in result["stages"] if stage["state"] == "done"]
    assert made == ["decoder", "judge"]
    run = run_on(server, lake)
    assert run["state"]["name"] == "Done: decoder, judge"
    assert run["name"] == "demo · decoder, judge"
    assert "dataset:demo" in run["tags"]
    tasks = post(server, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    names = {task["name"] for task in tasks}
    assert {f"{stage} demo" for stage in TRAINING_STAGES} <= names
    assert not {f"{stage} demo" for stage in DATASET_STAGES} & names, "a dataset that did not change has no tasks"
    of_run = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    artifacts = {artifact["key"]: artifact for artifact in post(server, "/artifacts/filter", of_run)}
    shown = {name for name in STAGES if f"demo-{name}" in artifacts}
    assert shown == set(made), "what did not change is not shown again"
    summary = artifacts["demo-summary"]["data"]
    for stage in result["stages"]:
        counts = f"{stage['in']:,} | {stage['out']:,} | {stage['dropped']:,}"
        assert f"| [{stage['name']}](/artifacts/key/demo-{stage['name']}) | {stage['state']} | {counts} |" in summary
    for name in made:
        assert "](data:image/jpeg;base64," in artifacts[f"demo-{name}"]["data"]
        assert len(artifacts[f"demo-{name}"]["data"]) < 400_000
    assert "| best | 16 |" in artifacts["demo-decoder"]["data"]
    logs = post(server, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200})
    assert any("decoder" in line["name"] or "training" in line["name"] for line in logs), "the library's own lines"
    assert not [line for line in logs if line["name"].startswith("httpx")]


def test_a_run_is_told_that_a_list_is_meant_to_shrink(server: str, httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/robots.txt").respond_with_data("User-agent: *\nDisallow:")
    urls = []
    for number in range(12):
        picture = io.BytesIO()
        Image.new("RGB", (8, 6), (0, 0, number)).save(picture, "PNG")
        httpserver.expect_request(f"/{number}.png").respond_with_data(picture.getvalue())
        urls.append(httpserver.url_for(f"/{number}.png"))
    httpserver.expect_request("/gone.png").respond_with_data("gone", status=404)
    addresses, recipe = tmp_path / "kids.txt", tmp_path / "kids.yaml"
    source = {
        "addresses": str(addresses),
        "contact": "me@example.org",
        "acknowledge_terms": True,
        "requests_per_second": 50,
        "allow_private_addresses": True,
    }
    recipe.write_text(json.dumps({"name": "kids", "source": source}))
    settings = environment(tmp_path / "home", PREFECT_API_URL=server)

    def run(lines: list[str], *options: str) -> subprocess.CompletedProcess[str]:
        addresses.write_text("\n".join(lines))
        command = [str(BIN / "sp-data"), "run", str(recipe), "--lake", str(tmp_path / "lake"), "--until", "scrape"]
        return subprocess.run([*command, "--json", *options], env=settings, capture_output=True, text=True, timeout=120)

    assert json.loads(run(urls).stdout)["stages"][0]["out"] == 12
    refused = run(urls[:2])
    assert refused.returncode == 1 and "has 12 pictures, and 2 are left" in refused.stderr
    assert "again as it was" not in refused.stderr, "the recipe is the same"
    (tmp_path / "short.txt").write_text(urls[0])
    by_name = [str(BIN / "sp-data"), "run", "kids", "--lake", str(tmp_path / "lake"), "--until", "curate"]
    kept = (tmp_path / "lake/kids/recipe.json").read_bytes()
    slip = [*by_name, "--set", f"source.addresses={tmp_path / 'short.txt'}", "--quiet"]
    planned = [slip[0], "scrape", *slip[2:5], *slip[-3:], "--dry-run"]
    dry = subprocess.run(planned, env=settings, capture_output=True, text=True, timeout=120)
    assert dry.returncode == 0 and "the scrape will refuse that without --allow-shrink" in dry.stderr
    slipped = subprocess.run(slip, env=settings, capture_output=True, text=True, timeout=120)
    assert slipped.returncode == 1 and "and one is left" in slipped.stderr
    assert "Warning" not in slipped.stderr, "Prefect is silent about what is said before its run"
    assert (tmp_path / "lake/kids/recipe.json").read_bytes() == kept, "what was refused is not kept"
    shrunk = run(urls[:2], "--allow-shrink")
    assert shrunk.returncode == 0, shrunk.stderr
    assert json.loads(shrunk.stdout)["stages"][0]["out"] == 2
    nothing = run([httpserver.url_for("/gone.png")], "--allow-shrink")
    assert nothing.returncode == 1 and "came: 1 not-found" in nothing.stderr


def test_a_run_by_hand_is_heard_of_under_its_datasets_tags(server: str, tmp_path: Path) -> None:
    """By them the automation that ends runs without a heartbeat knows it."""
    settings = environment(tmp_path / "home", PREFECT_API_URL=server)
    command = [str(BIN / "sp-data"), "run", "demo", "--until", "scrape", "--set", "source.demo.num_kids=24"]
    subprocess.run([*command, "--lake", str(tmp_path / "lake"), "--quiet"], env=settings, check=True, timeout=120)
    run = run_on(server, tmp_path / "lake")
    heartbeats = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
    }

    def tags() -> set[str]:
        events = post(server, "/events/filter", {"filter": heartbeats})["events"]
        return {related["prefect.resource.id"] for event in events for related in event["related"]}

    wait_for("a heartbeat", tags, 30)
    assert {"prefect.tag.sp-data", "prefect.tag.dataset:demo"} <= tags()
    assert {"sp-data", "dataset:demo"} <= {*run["tags"]}
