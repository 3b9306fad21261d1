"""What `sp-data deploy` wants of a server, before it asks one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.wanted import MONTHLY, WEEKLY, Target, WantedDeployment, wanted
from sp_data.cli import deploy as command
from sp_data.errors import UsageError
from sp_data.kept_recipe import file_of_runs, find_recipe
from sp_data.recipe import NAMED, demo, load_recipe, southpark

LAKE = "./lake"
KIDS, OTHERS = Target("kids", "kids.yaml", LAKE), Target("others", "others.yaml", LAKE)


def write_recipe(path: Path, name: str, *sets: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    fields = load_recipe("demo", sets).model_dump(mode="json") | {"name": name}
    path.write_text(yaml.safe_dump(fields))
    return path


def deployments(*targets: Target) -> dict[str, WantedDeployment]:
    return {deployment.full_name: deployment for deployment in wanted(targets, ["demo"], ".", None).deployments}


def offered(deployment: WantedDeployment) -> list[str]:
    names: list[str] = deployment.fields["parameter_openapi_schema"]["properties"]["recipe"]["enum"]
    return names


def test_a_form_offers_its_own_recipe_and_dataset_and_no_other_dataset() -> None:
    both = deployments(KIDS, OTHERS)
    assert offered(both["dataset/kids"]) == ["demo", "kids.yaml", "kids"]
    assert both["dataset/kids"] == deployments(KIDS)["dataset/kids"], "another dataset changes nothing"


def test_a_dataset_that_came_into_the_lake_is_no_drift_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "recipes" / "kids.yaml", "kids")
    seen: list[tuple[Any, ...]] = []

    def deploy(recipes: Any, names: Any, *_: Any, **__: Any) -> list[Any]:
        seen.append(([name for name, _ in recipes], tuple(names)))
        return []

    monkeypatch.setattr("deployments.deploy.deploy", deploy)
    command.deploy(None, LAKE, check=True)
    (tmp_path / "lake" / "others" / "manifests").mkdir(parents=True)
    command.deploy(None, LAKE, check=True)
    assert seen == [(["kids.yaml"], ("kids.yaml", *NAMED))] * 2


def test_schedules_are_made_with_their_deployments_and_replaced_only_if_asked_for() -> None:
    new = deployments(KIDS)
    assert {name: made.cron for name, made in new.items() if made.cron} == {
        "dataset/kids": WEEKLY,
        "upkeep/kids": MONTHLY,
    }
    assert not any(made.replaces_crons for made in new.values())
    daily = deployments(Target("kids", "kids.yaml", LAKE, "0 4 * * *"))
    assert daily["dataset/kids"].cron == "0 4 * * *"
    assert [name for name, made in daily.items() if made.replaces_crons] == ["dataset/kids"]
    assert daily["upkeep/kids"].cron == MONTHLY


@pytest.mark.parametrize("every", [None, "0 4 * * *"])
def test_the_demo_has_no_schedule(every: str | None) -> None:
    made = deployments(Target.of("demo", demo(), LAKE, every)).values()
    assert not any(deployment.cron or deployment.replaces_crons for deployment in made)
    assert Target.of("southpark", southpark(), LAKE, every).is_scheduled


def test_a_recipe_file_that_runs_would_not_find_is_not_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = write_recipe(tmp_path / "drafts" / "kids.yaml", "kids")
    with pytest.raises(
        UsageError, match=r"^drafts/kids\.yaml: .* look for kids\.yaml in /.*/recipes, and would find none;"
    ):
        file_of_runs("drafts/kids.yaml", LAKE)
    beside = write_recipe(tmp_path / "recipes" / "kids.yaml", "kids", "curate.min_side_px=32")
    for name in ("drafts/kids.yaml", str(elsewhere)):
        with pytest.raises(UsageError, match=r"would take /.*/recipes/kids\.yaml; put it there"):
            file_of_runs(name, LAKE)
    for name in ("recipes/kids.yaml", str(beside), "kids.yaml", "./recipes/../recipes/kids.yaml"):
        assert file_of_runs(name, LAKE) == "kids.yaml"
    beside.unlink()
    write_recipe(tmp_path / "kids.yaml", "kids")
    assert file_of_runs("kids.yaml", LAKE) == "kids.yaml", "workers start in this folder"
    with pytest.raises(UsageError, match=r"in /.*/lake/recipes, and would take /.*/kids\.yaml;"):
        file_of_runs(str(elsewhere), str(tmp_path / "lake" / "lake"))


def test_a_bare_name_means_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beside = write_recipe(tmp_path / "recipes" / "kids.yaml", "kids", "curate.min_side_px=32")
    mine = write_recipe(tmp_path / "kids.yaml", "kids", "curate.min_side_px=48")
    with pytest.raises(UsageError) as refused:
        find_recipe("kids.yaml", [], LAKE)
    assert f"kids.yaml may mean {mine} or {beside}, which differ" in str(refused.value)
    for name, pixels in (("./kids.yaml", 48), ("recipes/kids.yaml", 32), (str(mine), 48)):
        assert find_recipe(name, [], LAKE)[0].curate.min_side_px == pixels
    mine.write_bytes(beside.read_bytes())
    assert find_recipe("kids.yaml", [], LAKE)[0].curate.min_side_px == 32
    beside.unlink()
    assert find_recipe("kids.yaml", [], LAKE)[0].name == "kids"
