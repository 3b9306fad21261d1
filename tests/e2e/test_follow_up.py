"""What a run tells a real Prefect server after it: that a fine-tuning is due, until there is one; and how it ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2e.prefect_api import get, post, wait_for

from flows.parameters import Changes
from sp_data import manifest as manifests
from sp_data.errors import StageError
from sp_data.kept_recipe import recall_recipe
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.training.dataset_change import change_between
from sp_data.training.decisions import decide
from tasks.follow_up import DONE, DUE, PLACE, announce_change, announce_training, note_drawn
from tasks.limits import tag_of
from tasks.reference import StageReference
from tasks.stage import reference_to
from tasks.summary import ended


def test_what_is_due_is_told_until_it_is_on_its_way_or_refused(api: str, demo_recipe: Recipe, lake_copy: Lake) -> None:
    def announce(change: Any = None) -> str:
        return announce_change(demo_recipe, lake_copy, change)

    # An event may be lost, and a fine-tuning may fail: nothing but a training ends it.
    for _ in range(2):
        assert announce() == "fine-tuning is due: there is no fine-tuning yet"

    def events() -> list[dict[str, Any]]:
        found = post(api, "/events/filter", {"filter": {"event": {"name": [DUE]}}})["events"]
        return [event for event in found if event["resource"].get(PLACE) == lake_copy.root]

    wait_for("two events", lambda: len(events()) == 2, 60)
    assert events()[0]["payload"]["added"] > 0

    on_its_way, elsewhere = started(api, lake_copy.url), started(api, f"{lake_copy.url}/another")
    assert announce() == f"no other fine-tuning: {on_its_way['name']} ({on_its_way['id']}) is on its way"
    set_state(api, on_its_way, "RUNNING")
    assert "is on its way" in announce()
    verified = manifests.latest(lake_copy, "verify")
    assert verified is not None
    change = change_between(lake_copy, None, verified)
    assert announce(change).startswith("fine-tuning is due"), "what runs began with the dataset as it was before"
    set_state(api, on_its_way, "FAILED")
    assert announce().startswith("fine-tuning is due")
    set_state(api, elsewhere, "FAILED")

    much_later = {"scheduled_time": (datetime.now(UTC) + timedelta(days=20)).isoformat()}
    started(api, lake_copy.url, state_details=much_later)
    assert announce().startswith("fine-tuning is due"), "a schedule of a person's own is not on its way"

    decide(lake_copy, "refused", verified.digest)
    assert announce() == "no fine-tuning: someone decided against it for this dataset"
    lake_copy.write_bytes("follow_up/refused.json", b"{damaged")
    assert announce().startswith("fine-tuning is due")
    wait_for("the six events", lambda: len(events()) == 6, 60)


def test_checkpoints_are_told_until_the_prompts_were_drawn(api: str, lake_copy: Lake) -> None:
    def events() -> list[dict[str, Any]]:
        found = post(api, "/events/filter", {"filter": {"event": {"name": [DONE]}}})["events"]
        return [event for event in found if event["resource"].get(PLACE) == lake_copy.root]

    announce_training(lake_copy)  # nothing is trained
    verified = json.loads(lake_copy.read_bytes("manifests/verify/latest.json"))
    decoder = Manifest.model_validate({**verified, "stage": "decoder", "files": []})
    manifests.publish(lake_copy, decoder)
    for _ in range(2):
        announce_training(lake_copy)
    note_drawn(lake_copy, decoder.digest)
    announce_training(lake_copy)
    wait_for("two events", lambda: len(events()) == 2, 60)


def test_a_flow_keeps_its_recipe_unless_it_is_refused(api: str, lake_copy: Lake) -> None:
    """What follows by itself takes the recipe that is kept; a slip in the form must not be refused for ever."""
    from flows.dataset import dataset

    before = recall_recipe(lake_copy)
    with pytest.raises(StageError, match=r"none\.pt"):
        dataset(recipe="demo", lake=lake_copy.url, set=["embed.clip_model=none.pt"])
    assert before is not None and recall_recipe(lake_copy) == before
    dataset(recipe="demo", lake=lake_copy.url, changes=Changes(ask_first="yes"), set=["follow_up.finetune=false"])
    kept = recall_recipe(lake_copy)
    assert kept is not None and kept.follow_up.ask_first and not kept.follow_up.finetune, "though nothing changed"
    assert kept.embed == before.embed


def started(api: str, lake: str, **state: Any) -> dict[str, Any]:
    """A run of the fine-tuning that waits for a worker."""
    flow = post(api, "/flows/", {"name": "finetune"})
    run: dict[str, Any] = post(
        api,
        "/flow_runs/",
        {
            "flow_id": flow["id"],
            "tags": [tag_of("demo")],
            "parameters": {"lake": lake},
            "state": {"type": "SCHEDULED", "name": "Scheduled", **state},
        },
    )
    return run


def set_state(api: str, run: dict[str, Any], state: str) -> None:
    post(api, f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})
    assert get(api, f"/flow_runs/{run['id']}")["state"]["type"] == state


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
@pytest.mark.parametrize(
    ("dropped", "made_anew", "name"),
    [
        ({}, True, "Changed: made anew"),
        ({"http-404": 2, "cut-off": 1}, True, "Degraded: 3 quarantined"),
        ({"http-404": 2}, False, "Degraded: 2 quarantined"),
        ({"not-an-image": 2}, False, "Done: scrape"),
    ],
)
def test_pictures_that_should_have_come_degrade_a_run(
    api: str, lake_copy: Lake, dropped: dict[str, int], made_anew: bool, name: str
) -> None:
    path = "manifests/scrape/latest.json"
    fields = json.loads(lake_copy.read_bytes(path))
    fields["counts"] = {**fields["counts"], "in": fields["counts"]["out"] + sum(dropped.values()), "dropped": dropped}
    lake_copy.write_bytes(path, json.dumps(fields).encode())
    scraped, verified = manifests.latest(lake_copy, "scrape"), manifests.latest(lake_copy, "verify")
    assert scraped is not None and verified is not None
    stages: list[StageReference] = [reference_to(scraped, "done", 1.0)]
    change = change_between(lake_copy, verified, verified) if made_anew else None
    assert ended(lake_copy, stages, "reports/report.html", change).name == name
    assert ended(lake_copy, [reference_to(scraped, "unchanged", 0.1)], "", None).name == "Unchanged"
