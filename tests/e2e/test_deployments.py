"""What an operator does, on a real Prefect server with a real worker, a real MediaWiki and a real browser.

A folder with a recipe file is deployed; the wiki changes; from then on nobody types a command: the scheduled flow finds
the change, the fine-tuning waits for its approval in the UI, and the same prompts are drawn before and after.
"""

from __future__ import annotations

import os
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.deployed import Place, place_at, processes_of, trainers, worker
from e2e.form import Form
from e2e.page_server import chromium
from e2e.prefect_api import QUICK, delete, patch, post, wait_for
from mediawiki.changes import visible_changes
from mediawiki.wiki import MediaWiki
from playwright.sync_api import Page

from flows.parameters import Changes
from sp_data.kept_recipe import find_recipe
from sp_data.recipe import load_recipe

DATASET = "littlewiki"
pytestmark = pytest.mark.timeout(1800)


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
    """A folder with a recipe file for the wiki, run once by the command, then deployed with the demo; and a worker."""
    folder = tmp_path_factory.mktemp("operator")
    (folder / "recipes").mkdir()
    (folder / "recipes" / f"{DATASET}.yaml").write_text(yaml.safe_dump(little_recipe(wiki)))
    place = place_at(folder, server, tmp_path_factory.mktemp("worker-home"))
    place.command("run", f"{DATASET}.yaml", "--no-prefect", "--quiet")
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
    with chromium() as browser:
        yield browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()


@pytest.fixture(scope="module")
def changed(place: Place, wiki: MediaWiki, browser_page: Page) -> dict[str, Any]:
    """The wiki changed: a run that was started by its form, and what followed by itself, approved in the UI."""
    wiki.apply(visible_changes(wiki.root / "sample"))
    form = Form(browser_page, place.site, place.deployment(f"dataset/{DATASET}")["id"])
    seen = {"height_px": form.height_px, "num_controls": form.num_controls}
    form.choose("Recipe", f"{DATASET}.yaml")
    show(browser_page, "form")
    scraped = place.finished(form.submit())
    return {"dataset": scraped, **seen, **follow(place, browser_page)}


def follow(place: Place, page: Page) -> dict[str, Any]:
    """Approve the fine-tuning that follows, and wait for the pictures after it."""

    def newest(kind: str) -> dict[str, Any] | None:
        runs = place.runs_of(f"{kind}/{DATASET}")
        return runs[-1] if runs else None

    wait_for("a fine-tuning that waits", lambda: (run := newest("finetune")) and run["state"]["type"] == "PAUSED", 300)
    run = newest("finetune")
    assert run is not None
    answer(page, f"{place.site}/runs/flow-run/{run['id']}", approve=True)
    wait_for("the resumed run", lambda: place.run(run["id"])["state"]["type"] != "PAUSED", 300)
    finetuned = place.finished(run["id"])
    wait_for("the pictures", lambda: newest("generate"), 300)
    generate = newest("generate")
    assert generate is not None
    return {"waiting": run, "finetune": finetuned, "generate": place.finished(generate["id"])}


def answer(page: Page, address: str, *, approve: bool) -> None:
    """Fill in the form of a run that waits, and see that the server took it."""
    # A page of its own: Prefect's keeps polling and animating a run as long as it is open.
    with page.context.new_page() as own:
        own.goto(address)
        own.get_by_role("button", name="Resume").first.click()
        own.get_by_text("Fine-tune now").wait_for()
        if not approve:
            own.get_by_role("switch").first.click()
        show(own, "approval")
        for _ in range(5):
            with own.expect_response(lambda response: response.url.endswith("/resume")) as resumed:
                own.get_by_role("button", name="Submit").click()
            # Prefect's SQLite may be busy; a person clicks again, and its dialog is still there or is opened again.
            if resumed.value.status != 503:
                break
            if not own.get_by_role("button", name="Submit").is_visible():
                own.get_by_role("button", name="Resume").first.click()
        assert resumed.value.ok, resumed.value.text()
        assert resumed.value.json()["status"] == "ACCEPT", resumed.value.json()


def show(page: Page, name: str) -> None:
    """Leave a picture of the page where SCREENSHOTS names a folder, for eyes."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_form_has_a_choice_of_recipes_and_few_controls(place: Place, changed: dict[str, Any]) -> None:
    assert changed["num_controls"] < 30
    assert changed["height_px"] < 3000
    for flow in ("dataset", "finetune", "pipeline", "generate", "export", "upkeep"):
        properties = place.deployment(f"{flow}/{DATASET}")["parameter_openapi_schema"]["properties"]
        assert {f"{DATASET}.yaml", "demo", "southpark"} <= set(properties["recipe"]["enum"])
        assert properties["recipe"]["default"] == f"{DATASET}.yaml"
        assert all(schema.get("description") for schema in properties.values()), flow


def test_a_wiki_that_changes_leads_to_pictures_without_a_command(
    place: Place, changed: dict[str, Any], browser_page: Page
) -> None:
    scraped = changed["dataset"]
    assert scraped["state"]["name"].startswith("Changed: +"), scraped["state"]
    assert scraped["name"].startswith(f"{DATASET} · +")
    assert f"dataset:{DATASET}" in scraped["tags"]
    summary = place.artifacts(scraped["id"])[f"{DATASET}-summary"]
    assert f"[scrape](/artifacts/key/{DATASET}-scrape) | done |" in summary["data"]
    waiting = changed["waiting"]
    assert "waiting for approval" in waiting["name"]
    assert "](data:image/jpeg;base64," in place.artifacts(waiting["id"])[f"{DATASET}-approval"]["data"]
    assert changed["finetune"]["state"]["name"] == "Done: prior, decoder"
    assert changed["generate"]["state"]["type"] == "COMPLETED"
    pictures = place.artifacts(changed["generate"]["id"])[f"{DATASET}-before-after"]
    assert pictures["data"].index("### Before") < pictures["data"].index("### After")
    assert not place.runs_of("finetune/demo"), "a change of one dataset is none of another"
    page = place.folder / "lake" / DATASET / changed["generate"]["state"]["message"].rpartition(", ")[2]
    assert page.read_text("utf-8").count("<img") == 4, "two prompts, before and after"
    for name, artifact in (("summary", summary), ("before-after", pictures)):
        browser_page.goto(f"{place.site}/artifacts/artifact/{artifact['id']}")
        browser_page.locator(".p-markdown-renderer, article, table").first.wait_for()
        show(browser_page, name)


def test_an_unchanged_wiki_costs_one_request_and_starts_nothing(
    place: Place, wiki: MediaWiki, changed: dict[str, Any]
) -> None:
    # Changes that the wiki logged in the last minutes are asked for twice.
    place.finished(place.start(f"dataset/{DATASET}"))
    runs_before = {kind: len(place.runs_of(f"{kind}/{DATASET}")) for kind in ("finetune", "generate")}
    wiki.clear_log()
    unchanged = place.run_by_schedule(f"dataset/{DATASET}")
    assert unchanged["state"]["name"] == "Unchanged"
    assert unchanged["name"] == f"{DATASET} · unchanged"
    assert [access.kind for access in wiki.log()].count("api") == 1
    in_run = {"flow_runs": {"id": {"any_": [unchanged["id"]]}}}
    assert post(place.server, "/task_runs/filter", in_run) == [], "idle runs would fill the database with their tasks"
    assert not place.artifacts(unchanged["id"]).keys() & {f"{DATASET}-scrape", f"{DATASET}-summary"}
    # Where an event goes out, the run's note and its log say so.
    assert unchanged["state"]["message"].startswith("no fine-tuning: no picture and no caption changed since")
    assert not [line for line in place.log(unchanged["id"]) if "sp-data.finetune" in line]
    assert runs_before == {kind: len(place.runs_of(f"{kind}/{DATASET}")) for kind in ("finetune", "generate")}


def test_what_one_really_does_is_a_few_clicks(place: Place, browser_page: Page) -> None:
    """Six tasks by the form; each is a run with the right parameters, and none of them runs here."""
    pool = f"{place.server}/work_pools/sp-data"
    patch(pool, {"is_paused": True})
    made = []
    try:
        for deployment, fill_in, num_clicks, wanted in TASKS:
            form = Form(browser_page, place.site, place.deployment(deployment)["id"])
            fill_in(form)
            made.append(form.submit())
            given = place.run(made[-1])["parameters"]
            assert {name: _at(given, name) for name in wanted} == wanted
            assert form.num_clicks == num_clicks, (deployment, wanted)
            # Nothing of it would be refused in the run's first second.
            lines = [*Changes(**given.get("changes", {})).lines(), *given.get("set", [])]
            recipe, _ = find_recipe(given["recipe"], lines, str(place.folder / "lake"))
            recipe.source.check_politeness()
    finally:
        for run in made:
            delete(f"{place.server}/flow_runs/{run}")
        patch(pool, {"is_paused": False})


def _at(fields: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        fields = fields[name]
    return fields


def _own_wiki(form: Form) -> None:
    form.choose("Recipe", "southpark")
    form.fill("Wiki", "https://mine.example.org")
    form.fill("Contact", "me@example.org")
    form.switch("Terms read")
    form.add("Set other fields", "name=mine")


def _more_steps(form: Form) -> None:
    form.fill("Steps of the prior", "5000")
    form.fill("Steps of the decoder", "9000")


def _other_prompts(form: Form) -> None:
    form.add("Prompts", "Kenny as a samurai")
    form.add("Prompts", "a friend")


TASKS: tuple[tuple[str, Callable[[Form], None], int, dict[str, Any]], ...] = (
    (
        f"dataset/{DATASET}",
        lambda form: form.choose("Recipe", f"{DATASET}.yaml"),
        5,
        {"recipe": f"{DATASET}.yaml"},
    ),
    (
        f"dataset/{DATASET}",
        _own_wiki,
        10,
        {
            "recipe": "southpark",
            "changes.wiki": "https://mine.example.org",
            "changes.contact": "me@example.org",
            "changes.acknowledge_terms": True,
            "set": ["name=mine"],
        },
    ),
    (f"dataset/{DATASET}", lambda form: form.choose("Last stage", "scrape"), 5, {"until": "scrape"}),
    (f"finetune/{DATASET}", _more_steps, 5, {"changes.prior_steps": 5000, "changes.decoder_steps": 9000}),
    ("generate/demo", _other_prompts, 7, {"prompts": ["Kenny as a samurai", "a friend"]}),
    (f"pipeline/{DATASET}", lambda form: form.choose("Last stage", "verify"), 5, {"until": "verify"}),
)
"""Deployment, what is filled in, how many clicks, what the run then has: own wiki by its file, own wiki without one,
only re-scrape, longer fine-tuning, other prompts, no training."""


def test_deploying_twice_changes_nothing_and_a_drift_is_found(place: Place) -> None:
    assert "unchanged" in place.command("deploy", f"recipes/{DATASET}.yaml")
    assert "made" not in place.command("deploy", f"recipes/{DATASET}.yaml")
    place.command("deploy", f"recipes/{DATASET}.yaml", "--check")
    found = place.deployment(f"dataset/{DATASET}")
    schedule = found["schedules"][0]
    address = f"{place.server}/deployments/{found['id']}"
    patch(f"{address}/schedules/{schedule['id']}", {"active": False})
    place.command("deploy", f"recipes/{DATASET}.yaml", "--check")
    patch(address, {"work_queue_name": "gpu", "description": "mine"})
    drift = place.command("deploy", f"recipes/{DATASET}.yaml", "--check", code=1)
    assert f"differs: deployment dataset/{DATASET} (" in drift
    assert "changed deployment" not in drift, "nothing was done"
    place.command("deploy", f"recipes/{DATASET}.yaml")
    mended = place.deployment(f"dataset/{DATASET}")
    assert mended["work_queue_name"] == "default"
    assert not mended["schedules"][0]["active"], "a schedule that was paused by hand stays paused"
    assert not place.deployment("dataset/demo")["schedules"], "the demo's wiki does not change by itself"


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"recipe": "nowhere"}, "recipe"),
        ({"until": "tomorrow"}, "until"),
        ({"changes": {"prior_steps": -1}}, "minimum"),
        ({"changes": {"wiki": "ftp://wiki.example"}}, "wiki"),
        ({"changes": {"steps": 1}}, "steps"),
        ({"set": ["nonsense"]}, "set"),
        ({"flow": "generate", "num_pictures": 0}, "num_pictures"),
        ({"flow": "generate", "best_of": 1000}, "best_of"),
        ({"flow": "generate", "cond_scale": -1}, "cond_scale"),
        ({"flow": "generate", "sampler": "magic"}, "sampler"),
        ({"flow": "upkeep", "keep_runs_days": -1}, "keep_runs_days"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(place: Place, parameters: dict[str, Any], word: str) -> None:
    flow = parameters.get("flow", "dataset")
    with pytest.raises(urllib.error.HTTPError) as refused:
        place.start(f"{flow}/demo", **{name: value for name, value in parameters.items() if name != "flow"})
    assert refused.value.code == 409
    assert word in refused.value.read().decode()


def test_what_only_the_recipe_can_tell_ends_the_run_in_one_sentence(place: Place) -> None:
    wrong = {
        "did you mean 'min_side_px'?": {"set": ["curate.min_sid_px=3"]},
        "serves a made-up wiki of its own": {"changes": {"wiki": "https://southpark.fandom.com"}},
    }
    started = {sentence: place.start("dataset/demo", **parameters) for sentence, parameters in wrong.items()}
    for sentence, run in started.items():
        ended = place.finished(run, 300)
        assert ended["state"]["type"] == "FAILED"
        assert sentence in ended["state"]["message"]
        # Prefect's own lines on an error come after the state.
        wait_for("the end of its process", lambda run=run: not processes_of(run), 60)
        log = place.log(run)
        assert [line for line in log if sentence in line]
        assert not [line for line in log if "Traceback" in line or "unexpected" in line]


def test_cancelling_a_training_ends_its_process(place: Place, first_run: tuple[dict[str, Any], Path]) -> None:
    _, lake = first_run
    before = set((lake / "demo" / "runs").glob("prior-*/metrics.jsonl"))
    run = place.start("finetune/demo", set=["prior.steps=100000", "prior.save_every=100000", "prior.log_every=5"])
    wait_for("the first line of metrics", lambda: set((lake / "demo/runs").glob("prior-*/metrics.jsonl")) - before, 200)
    assert trainers(lake), "a child process trains"
    post(place.server, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert place.finished(run, 300)["state"]["type"] == "CANCELLED"
    assert not trainers(lake, wait_s=1)


@pytest.mark.proof
def test_a_newer_change_ends_an_older_question_and_a_no_holds(
    place: Place, wiki: MediaWiki, changed: dict[str, Any], browser_page: Page
) -> None:
    older = asked_after(place, wiki, "File:Kid-000.png")
    wait_for("the end of its process", lambda: not processes_of(older["id"]), 60)
    idle = place.finished(place.start(f"dataset/{DATASET}"))
    assert f"({older['id']}) is on its way" in idle["state"]["message"]
    newer = asked_after(place, wiki, "File:Kid-001.png")
    wait_for("the older one's end", lambda: place.run(older["id"])["state"]["type"] == "CANCELLED", 60)
    assert newer["id"] in place.run(older["id"])["state"]["message"]

    answer(browser_page, f"{place.site}/runs/flow-run/{newer['id']}", approve=False)
    ended = place.finished(newer["id"])
    assert ended["state"]["name"] == "Not approved"
    assert ended["name"] == newer["name"].replace("waiting for approval", "not approved")
    idle = place.finished(place.start(f"dataset/{DATASET}"))
    assert idle["state"]["message"] == "no fine-tuning: someone decided against it for this dataset"


@pytest.mark.proof
def test_what_was_approved_is_not_asked_again_when_its_training_is_retried(
    place: Place, wiki: MediaWiki, changed: dict[str, Any], browser_page: Page
) -> None:
    asked = asked_after(place, wiki, "File:Kid-002.png")
    runs = place.folder / "lake" / DATASET / "runs"
    aside = runs.rename(runs.with_name("aside"))
    runs.write_text("no folder")
    answer(browser_page, f"{place.site}/runs/flow-run/{asked['id']}", approve=True)
    wait_for("the resumed run", lambda: place.run(asked["id"])["state"]["type"] != "PAUSED", 120)
    failed = place.finished(asked["id"])
    assert failed["state"]["type"] == "FAILED", failed["state"]
    runs.unlink()
    aside.rename(runs)
    # What the button Retry sends.
    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}}
    post(place.server, f"/flow_runs/{asked['id']}/set_state", again)
    wait_for("the retry", lambda: place.run(asked["id"])["state"]["type"] == "RUNNING", 120)
    ended = place.finished(asked["id"])
    assert ended["state"]["name"] == "Done: prior, decoder", ended["state"]
    assert sum("waiting for an approval" in line for line in place.log(asked["id"])) == 1


def asked_after(place: Place, wiki: MediaWiki, title: str) -> dict[str, Any]:
    """The fine-tuning that asks after a file was deleted in the wiki."""
    before = {run["id"] for run in place.runs_of(f"finetune/{DATASET}")}
    wiki.apply([{"op": "delete", "title": title}])
    scraped = place.finished(place.start(f"dataset/{DATASET}"))
    assert scraped["state"]["name"].startswith("Changed: "), scraped["state"]

    def newest() -> dict[str, Any] | None:
        runs = [run for run in place.runs_of(f"finetune/{DATASET}") if run["id"] not in before]
        return runs[-1] if runs and runs[-1]["state"]["type"] == "PAUSED" else None

    wait_for("a fine-tuning that asks", newest, 120)
    run = newest()
    assert run is not None
    return run
