"""What an operator does, on a real Prefect server with a real worker, a real MediaWiki and a real browser.

A folder with a recipe file is deployed; the wiki changes; from then on nobody types a command: the scheduled flow finds
the change, the fine-tuning waits for its approval in the UI, and the same prompts are drawn before and after.
"""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.deployed import Place, place_at, trainers, worker
from e2e.prefect_api import QUICK, post, wait_for
from mediawiki.changes import visible_changes
from mediawiki.wiki import MediaWiki
from playwright.sync_api import Page, sync_playwright

from sp_data.recipe import load_recipe

CHROMIUM = "/usr/bin/chromium"
DATASET = "littlewiki"
NUM_FLOWS = 6


@pytest.fixture(scope="module")
def wiki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaWiki]:
    from mediawiki.sample import sample_ops
    from mediawiki.wiki import why_not

    if reason := why_not():
        pytest.skip(reason)
    with MediaWiki(tmp_path_factory.mktemp("changing-wiki")) as wiki:
        wiki.apply(sample_ops(wiki.root / "sample", 24))
        yield wiki


@pytest.fixture(scope="module")
def place(
    server: str, wiki: MediaWiki, first_run: tuple[dict[str, Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A folder with a recipe file for the wiki, deployed together with the demo, and a worker."""
    folder = tmp_path_factory.mktemp("operator")
    (folder / "recipes").mkdir()
    (folder / "recipes" / f"{DATASET}.yaml").write_text(yaml.safe_dump(little_recipe(wiki)))
    place = place_at(folder, server, tmp_path_factory.mktemp("worker-home"))
    place.command("deploy", f"recipes/{DATASET}.yaml")
    place.command("deploy", "demo", "--lake", str(first_run[1]))
    with worker(place):
        yield place


def little_recipe(wiki: MediaWiki) -> dict[str, Any]:
    """The demo's little models for a wiki that is none of the demo's."""
    quick = [line for line in QUICK if not line.startswith(("source.", "judge."))]
    fields = load_recipe("demo", quick).model_dump(mode="json")
    fields |= {
        "name": DATASET,
        "judge": None,
        "source": {"wiki": wiki.url, "select": "all", "requests_per_second": 0},
        "curate": {"min_side_px": 16},
        "follow_up": {"ask_first": True, "prompts": ["a kid in a coat", "a friend"], "num_pictures": 1},
    }
    for name in ("prior", "decoder"):
        fields[name] |= {"steps": 8, "save_every": 8, "log_every": 4, "batch_size": 4}
    fields["decoder"]["unets"] = [{**unet, "steps": 4} for unet in fields["decoder"]["unets"]]
    return fields


@pytest.fixture(scope="module")
def browser_page(place: Place) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1280, "height": 1000})
        browser.close()


@pytest.fixture(scope="module")
def first_pictures(place: Place, browser_page: Page) -> dict[str, Any]:
    """The first run of the dataset, started by its form, and what followed by itself; approved in the UI."""
    site = place.server.removesuffix("/api")
    browser_page.goto(f"{site}/deployments/deployment/{place.deployment(f'dataset/{DATASET}')['id']}/run")
    browser_page.get_by_role("button", name="Submit").wait_for()
    controls = browser_page.locator("input:visible, textarea:visible, [role=combobox]:visible, [role=switch]:visible")
    num_controls = controls.count()
    browser_page.get_by_role("button", name="Submit").click()
    wait_for("the run of the form", lambda: place.runs_of(f"dataset/{DATASET}"), 30)
    scraped = place.finished(place.runs_of(f"dataset/{DATASET}")[0]["id"])
    drawn = follow(place, browser_page, num_before=0)
    return {"dataset": scraped, "num_controls": num_controls, **drawn}


def follow(place: Place, page: Page, num_before: int) -> dict[str, Any]:
    """Approve the fine-tuning that follows, and wait for the pictures after it."""

    def newest(kind: str) -> dict[str, Any] | None:
        runs = place.runs_of(f"{kind}/{DATASET}")
        return runs[num_before] if len(runs) > num_before else None

    wait_for("a fine-tuning that waits", lambda: (run := newest("finetune")) and run["state"]["type"] == "PAUSED", 120)
    run = newest("finetune")
    assert run is not None
    approve(page, f"{place.server.removesuffix('/api')}/runs/flow-run/{run['id']}")
    wait_for("the resumed run", lambda: place.run(run["id"])["state"]["type"] != "PAUSED", 60)
    finetuned = place.finished(run["id"])
    wait_for("the pictures", lambda: newest("generate"), 60)
    generate = newest("generate")
    assert generate is not None
    return {"waiting": run, "finetune": finetuned, "generate": place.finished(generate["id"])}


def approve(page: Page, address: str) -> None:
    """Fill in the form of a run that waits, and see that the server took it."""
    # A page of its own: Prefect's keeps polling and animating a run as long as it is open.
    with page.context.new_page() as own:
        own.goto(address)
        own.get_by_role("button", name="Resume").first.click()
        own.get_by_text("Fine-tune now").wait_for()
        with own.expect_response(lambda response: response.url.endswith("/resume")) as resumed:
            own.get_by_role("button", name="Submit").click()
        assert resumed.value.ok, resumed.value.text()
        assert resumed.value.json()["status"] == "ACCEPT", resumed.value.json()


def test_the_form_has_a_choice_of_recipes_and_few_controls(place: Place, first_pictures: dict[str, Any]) -> None:
    assert first_pictures["num_controls"] < 30
    for flow in ("dataset", "finetune", "pipeline", "generate", "export", "upkeep"):
        properties = place.deployment(f"{flow}/{DATASET}")["parameter_openapi_schema"]["properties"]
        assert {f"{DATASET}.yaml", "demo", "southpark"} <= set(properties["recipe"]["enum"])
        assert properties["recipe"]["default"] == f"{DATASET}.yaml"
        assert all(schema.get("description") for schema in properties.values()), flow


def test_a_new_dataset_is_tuned_on_after_an_approval_and_drawn(place: Place, first_pictures: dict[str, Any]) -> None:
    scraped = first_pictures["dataset"]
    assert scraped["state"]["name"].startswith("Changed: +"), scraped["state"]
    assert scraped["name"].startswith(f"{DATASET} · +")
    assert f"dataset:{DATASET}" in scraped["tags"]
    summary = place.artifacts(scraped["id"])[f"{DATASET}-summary"]["data"]
    assert f"[scrape](/artifacts/key/{DATASET}-scrape) | done |" in summary
    waiting = first_pictures["waiting"]
    assert "waiting for approval" in waiting["name"]
    assert "](data:image/jpeg;base64," in place.artifacts(waiting["id"])[f"{DATASET}-approval"]["data"]
    assert first_pictures["finetune"]["state"]["name"] == "Done: prior, decoder"
    assert first_pictures["generate"]["state"]["type"] == "COMPLETED"
    shown = place.artifacts(first_pictures["generate"]["id"])[f"{DATASET}-before-after"]["data"]
    assert "### After" in shown
    assert "### Before" not in shown, "there was no fine-tuning before"


def test_a_wiki_that_changes_leads_to_pictures_without_a_command(
    place: Place, wiki: MediaWiki, browser_page: Page, first_pictures: dict[str, Any]
) -> None:
    wiki.apply(visible_changes(wiki.root / "sample"))
    changed = place.finished(place.start(f"dataset/{DATASET}"))
    assert changed["state"]["name"].startswith("Changed: +"), changed["state"]
    followed = follow(place, browser_page, num_before=1)
    assert followed["finetune"]["state"]["name"] == "Done: prior, decoder"
    shown = place.artifacts(followed["generate"]["id"])[f"{DATASET}-before-after"]["data"]
    assert shown.index("### Before") < shown.index("### After")
    page = place.folder / "lake" / DATASET / followed["generate"]["state"]["message"].rpartition(", ")[2]
    assert page.read_text("utf-8").count("<img") == 4, "two prompts, before and after"


def test_an_unchanged_wiki_costs_one_request_and_starts_nothing(
    place: Place, wiki: MediaWiki, first_pictures: dict[str, Any]
) -> None:
    # Changes that the wiki logged in the last minutes are asked for twice.
    place.finished(place.start(f"dataset/{DATASET}"))
    runs_before = {kind: len(place.runs_of(f"{kind}/{DATASET}")) for kind in ("finetune", "generate")}
    wiki.clear_log()
    unchanged = place.finished(place.start(f"dataset/{DATASET}"))
    assert unchanged["state"]["name"] == "Unchanged"
    assert unchanged["name"] == f"{DATASET} · unchanged"
    assert len([access for access in wiki.log() if "api.php" in access.url]) == 1
    assert not place.artifacts(unchanged["id"]).keys() & {f"{DATASET}-scrape", f"{DATASET}-summary"}
    time.sleep(5)
    assert runs_before == {kind: len(place.runs_of(f"{kind}/{DATASET}")) for kind in ("finetune", "generate")}


def test_deploying_twice_changes_nothing_and_a_drift_is_found(place: Place) -> None:
    assert "unchanged" in place.command("deploy", f"recipes/{DATASET}.yaml")
    assert "made" not in place.command("deploy", f"recipes/{DATASET}.yaml")
    place.command("deploy", f"recipes/{DATASET}.yaml", "--check")
    found = place.deployment(f"dataset/{DATASET}")
    schedule = found["schedules"][0]
    patch(place, f"/deployments/{found['id']}/schedules/{schedule['id']}", {"active": False})
    place.command("deploy", f"recipes/{DATASET}.yaml", "--check")
    patch(place, f"/deployments/{found['id']}", {"work_queue_name": "gpu", "description": "mine"})
    drift = place.command("deploy", f"recipes/{DATASET}.yaml", "--check", code=1)
    assert f"changed deployment dataset/{DATASET}" in drift
    place.command("deploy", f"recipes/{DATASET}.yaml")
    mended = place.deployment(f"dataset/{DATASET}")
    assert mended["work_queue_name"] == "default"
    assert not mended["schedules"][0]["active"], "a schedule that was paused by hand stays paused"
    assert not place.deployment("dataset/demo")["schedules"], "the demo's wiki does not change by itself"


def patch(place: Place, path: str, body: dict[str, Any]) -> None:
    import json
    import urllib.request

    request = urllib.request.Request(
        f"{place.server}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PATCH"
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"recipe": "nowhere"}, "recipe"),
        ({"until": "tomorrow"}, "until"),
        ({"changes": {"prior_steps": -1}}, "minimum"),
        ({"changes": {"wiki": "ftp://wiki.example"}}, "wiki"),
        ({"changes": {"steps": 1}}, "steps"),
        ({"set": ["nonsense"]}, "set"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(place: Place, parameters: dict[str, Any], word: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        place.start("dataset/demo", **parameters)
    assert refused.value.code == 409
    assert word in refused.value.read().decode()


def test_what_only_the_recipe_can_tell_ends_the_run_in_one_sentence(place: Place) -> None:
    wrong = {
        "did you mean 'min_side_px'?": {"set": ["curate.min_sid_px=3"]},
        "serves a made-up wiki of its own": {"changes": {"wiki": "https://southpark.fandom.com"}},
    }
    started = {sentence: place.start("dataset/demo", **parameters) for sentence, parameters in wrong.items()}
    for sentence, run in started.items():
        ended = place.finished(run, 60)
        assert ended["state"]["type"] == "FAILED"
        assert sentence in ended["state"]["message"]
        assert not [line for line in place.log(run) if "Traceback" in line]


def test_cancelling_a_training_ends_its_process(place: Place, first_run: tuple[dict[str, Any], Path]) -> None:
    _, lake = first_run
    before = set((lake / "demo" / "runs").glob("prior-*/metrics.jsonl"))
    run = place.start("finetune/demo", set=["prior.steps=100000", "prior.save_every=100000", "prior.log_every=5"])
    wait_for("the first line of metrics", lambda: set((lake / "demo/runs").glob("prior-*/metrics.jsonl")) - before, 200)
    assert trainers(lake), "a child process trains"
    post(place.server, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert place.finished(run, 120)["state"]["type"] == "CANCELLED"
    assert not trainers(lake, wait_s=1)
