"""`sp-data deploy` on a real Prefect server: what it makes, what it leaves to a person, and what it takes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.deployed import Place, place_at
from e2e.prefect_api import delete, patch, post

from deployments.wanted import MONTHLY, WEEKLY, zombies
from sp_data.recipe import load_recipe

DAILY = "30 5 * * *"
FLOWS = ("dataset", "export", "finetune", "generate", "pipeline", "upkeep")
RUN, KIDS = "recipes/run.yaml", "recipes/kids.yaml"
"""A dataset called `run` beside another: its name is a word of every automation's."""


@pytest.fixture
def place(server: str, tmp_path: Path) -> Iterator[Place]:
    """A folder with two recipes, of wikis that are asked by nobody here; afterwards nothing is deployed."""
    (tmp_path / "recipes").mkdir()
    for name in ("run", "kids"):
        fields = load_recipe("southpark").model_dump(mode="json") | {"name": name}
        (tmp_path / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    place = place_at(tmp_path, server, tmp_path / "home")
    yield place
    place.command("deploy", "run", "kids", "--remove")


def names(place: Place, kind: str) -> list[str]:
    """Names of all deployments or automations that are of these datasets, or of all datasets."""
    objects = post(place.server, f"/{kind}/filter", {})
    return sorted(one["name"] for one in objects if not {"dataset:demo", "dataset:littlewiki"} & {*one["tags"]})


def schedules(place: Place, deployment: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = place.deployment(deployment)["schedules"]
    return sorted(made, key=lambda one: str(one["schedule"]))


def crons(place: Place, deployment: str) -> list[str]:
    return [one["schedule"]["cron"] for one in schedules(place, deployment) if "cron" in one["schedule"]]


def address(place: Place, deployment: str) -> str:
    return f"{place.server}/deployments/{place.deployment(deployment)['id']}"


def changes(place: Place, *arguments: str, code: int = 0) -> list[str]:
    printed = json.loads(place.command("deploy", *arguments, "--json", code=code))
    return [
        f"{one['action']} {one['kind']} {one['name']}" for one in printed["changes"] if one["action"] != "unchanged"
    ]


def test_removing_a_dataset_leaves_all_others_and_what_is_of_all(place: Place) -> None:
    would = place.command("deploy", RUN, "--check", code=1)
    assert "missing: deployment dataset/run" in would and "made" not in would
    place.command("deploy", RUN, KIDS)
    assert names(place, "deployments") == ["kids"] * 6 + ["run"] * 6
    both = names(place, "automations")
    removed = changes(place, RUN, "--remove")
    assert sorted(removed) == [
        "removed automation sp-data: draw run after a fine-tuning",
        "removed automation sp-data: fine-tune run when it changed",
        *(f"removed deployment {flow}/run" for flow in FLOWS),
    ]
    assert names(place, "deployments") == ["kids"] * 6
    left = names(place, "automations")
    assert zombies().name in left
    assert {*both} - {*left} == {"sp-data: draw run after a fine-tuning", "sp-data: fine-tune run when it changed"}
    assert changes(place, KIDS, "--check") == []
    assert "nothing to do: the server has nothing of run" in place.command("deploy", RUN, "--remove")


def test_a_dataset_whose_file_and_folder_are_gone_is_removed_by_its_name(place: Place) -> None:
    place.command("deploy", RUN)
    (place.folder / RUN).unlink()
    assert "8 removed" in place.command("deploy", "run", "--remove")
    assert names(place, "deployments") == []


def test_deploying_again_leaves_schedules_as_a_person_made_them(place: Place) -> None:
    place.command("deploy", RUN)
    assert (crons(place, "dataset/run"), crons(place, "upkeep/run")) == ([WEEKLY], [MONTHLY])
    path = f"{address(place, 'dataset/run')}/schedules"
    delete(f"{path}/{schedules(place, 'dataset/run')[0]['id']}")
    own = {"cron": DAILY, "timezone": "Europe/Berlin"}
    post(path, "", [{"schedule": own, "active": True}, {"schedule": {"interval": 3600.0}, "active": True}])
    monthly = schedules(place, "upkeep/run")[0]
    patch(f"{address(place, 'upkeep/run')}/schedules/{monthly['id']}", {"active": False})
    before = schedules(place, "dataset/run"), schedules(place, "upkeep/run")
    assert changes(place, RUN, "--check") == []
    # A change of another field leaves them alone too.
    patch(address(place, "dataset/run"), {"description": "mine"})
    assert changes(place, RUN) == ["changed deployment dataset/run"]
    assert (schedules(place, "dataset/run"), schedules(place, "upkeep/run")) == before

    # The same cron in another time zone is another schedule.
    replaced = [f"removed schedule dataset/run {DAILY}", f"made schedule dataset/run {DAILY}"]
    assert changes(place, RUN, "--every", DAILY, "--check", code=1) == replaced
    assert changes(place, RUN, "--every", DAILY) == replaced
    now = schedules(place, "dataset/run")
    assert [one["schedule"].get("timezone") for one in now if "cron" in one["schedule"]] == ["UTC"]
    assert [one["schedule"]["interval"] for one in now if "interval" in one["schedule"]] == [3600.0]
    assert schedules(place, "upkeep/run") == before[1]
    assert changes(place, RUN, "--every", DAILY) == []
    assert changes(place, RUN) == []


def test_a_paused_schedule_stays_paused_when_another_cron_is_asked_for(place: Place) -> None:
    place.command("deploy", RUN, "--every", DAILY)
    (daily,) = schedules(place, "dataset/run")
    patch(f"{address(place, 'dataset/run')}/schedules/{daily['id']}", {"active": False})
    place.command("deploy", RUN, "--every", WEEKLY)
    (weekly,) = schedules(place, "dataset/run")
    assert (weekly["schedule"]["cron"], weekly["active"]) == (WEEKLY, False)


def test_how_old_a_dataset_may_be_follows_its_schedule_and_stays(place: Place) -> None:
    notify = ("--notify", f"secret/{tell(place)}")
    old = "automation sp-data: tell if run grows old"
    assert f"made {old}" in changes(place, RUN, *notify)
    assert changes(place, RUN, "--check", *notify) == []
    assert f"changed {old}" in changes(place, RUN, "--every", DAILY, *notify)
    for _ in range(2):
        assert changes(place, RUN, *notify) == []


def tell(place: Place) -> str:
    """The name of a block. Any will do: the server looks for its kind when it sends."""
    kind = post(place.server, "/block_types/filter", {"block_types": {"slug": {"any_": ["secret"]}}})[0]["id"]
    schema = post(place.server, "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0][
        "id"
    ]
    body = {"name": "telling", "data": {"value": "none"}, "block_type_id": kind, "block_schema_id": schema}
    existing = post(place.server, "/block_documents/filter", {"block_documents": {"name": {"any_": ["telling"]}}})
    if not existing:
        post(place.server, "/block_documents/", body)
    return "telling"


def test_a_dataset_that_came_into_the_lake_is_no_drift(place: Place) -> None:
    place.command("deploy", RUN)
    (place.folder / "lake" / "others" / "manifests").mkdir(parents=True)
    assert changes(place, RUN, "--check") == []


def test_a_recipe_file_elsewhere_is_refused_before_the_server_is_asked(place: Place) -> None:
    (place.folder / "drafts").mkdir()
    (place.folder / "drafts" / "mine.yaml").write_bytes((place.folder / RUN).read_bytes())
    assert "look for mine.yaml in" in place.refused("deploy", "drafts/mine.yaml")
    assert names(place, "deployments") == []


def test_what_to_start_next_is_said_a_line_each(place: Place) -> None:
    lines = place.command("deploy", RUN).splitlines()
    assert lines[-2:] == [
        "start a worker in this folder, for all runs: prefect worker start --pool sp-data",
        "if the GPU is in another machine: here prefect worker start --pool sp-data --work-queue default, "
        "there prefect worker start --pool sp-data --work-queue gpu --limit 1",
    ]


def test_the_address_of_the_ui_in_place_of_the_api_is_told(place: Place) -> None:
    here = replace(place, environment={**place.environment, "PREFECT_API_URL": place.site})
    assert f"did you mean {place.server}?" in here.refused("deploy", RUN)
