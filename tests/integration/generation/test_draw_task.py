"""The flow's task: what it draws, and what its artifact shows of it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import tasks.generate
import tasks.report
from flows.generate import SweepOver, generate
from sp_data import manifest as manifests
from sp_data.errors import UsageError
from sp_data.generation.gallery import unseen_captions
from sp_data.generation.options import SamplingOptions
from sp_data.generation.picture import read_origin
from sp_data.lake import Lake
from sp_data.recipe import Recipe, load_recipe
from sp_data.recipe.load import changed
from sp_data.report.before_after import NUM_PROMPTS
from tasks.report import PAGE, page_address

from .drawing import RED, SHORT, noise

EVIL = "a | b <script>alert(1)</script> [kid](http://evil) `x` *y*"


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Those that the task makes: no Prefect server is asked."""
    made: list[dict[str, str]] = []
    monkeypatch.setattr(tasks.generate, "create_markdown_artifact", lambda **artifact: made.append(artifact))
    return made


def drawn(recipe: Recipe, lake: Lake, **changes: Any) -> list[Path]:
    asked: dict[str, Any] = {
        "prompts": [RED],
        "variations_of": [],
        "sweep_over": {},
        "num_pictures": 1,
        "seed": 3,
        "options": SHORT,
        "checkpoint": [],
        "page": PAGE,
    }
    return [Path(path) for path in tasks.generate.draw.fn(recipe, str(Path(lake.root).parent), **{**asked, **changes})]


def test_dreams_and_variations_are_drawn_at_once_and_linked_in_the_artifact(
    trained_copy: Lake, quick_recipe: Recipe, tmp_path: Path, artifacts: list[dict[str, str]]
) -> None:
    noise(50, 40).save(tmp_path / "kid.png")
    paths = drawn(
        quick_recipe, trained_copy, prompts=[RED, EVIL], variations_of=[str(tmp_path / "kid.png")], num_pictures=2
    )
    origins = [read_origin(path.read_bytes(), path.name) for path in paths]
    assert [(each["kind"], each["prompt"], each["seed"]) for each in origins] == [
        (kind, prompt, seed) for kind, prompt in (("dream", RED), ("dream", EVIL), ("variation", "")) for seed in (3, 4)
    ]
    (artifact,) = artifacts
    assert artifact["key"] == "demo-dreams"
    assert artifact["description"] == "6 pictures of 2 prompts and 1 pictures"
    markdown = artifact["markdown"]
    assert "![pictures](data:image/jpeg;base64," in markdown
    assert f"[{PAGE}]({PAGE})" in markdown
    items = [line for line in markdown.splitlines() if line.startswith("- ")]
    assert len(items) == 6
    for line, path in zip(items, paths, strict=True):
        name = re.escape(path.name)
        assert re.search(rf"\[{name}\]\({re.escape(PAGE)}/lake/generated/{name}\)$", line)
    assert items[0].startswith(f"- {RED}, seed 3: [")
    assert items[4].startswith("- variation, seed 3: [")
    told = items[2].partition(", seed 3: ")[0]
    for mark in "|<>[]()`*":
        assert re.findall(rf"(?<!\\){re.escape(mark)}", told) == [], f"{mark} would be Markdown or HTML"
    assert re.sub(r"\\(.)", r"\1", told) == f"- {EVIL}"


def test_a_sweep_draws_each_prompt_with_every_combination(
    trained_copy: Lake, quick_recipe: Recipe, artifacts: list[dict[str, str]]
) -> None:
    over = SweepOver(cond_scale=[1, 3])
    paths = drawn(
        quick_recipe,
        trained_copy,
        prompts=[RED, "a samurai", RED],
        sweep_over={name: values for name, values in over.model_dump().items() if values},
        num_pictures=9,
        options=SHORT,
        page="",
    )
    origins = [read_origin(path.read_bytes(), path.name) for path in paths]
    assert [(each["prompt"], each["cond_scale"][0]) for each in origins] == [
        (prompt, scale) for prompt in (RED, "a samurai") for scale in (1.0, 3.0)
    ]
    assert {each["seed"] for each in origins} == {3}
    assert "](http" not in artifacts[0]["markdown"], "without a page there are no links"
    assert all(f"`{path}`" in artifacts[0]["markdown"] for path in paths)


def test_the_flow_hands_on_what_was_set_and_leaves_the_rest_to_the_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(tasks.generate, "draw", lambda *_, **options: asked.update(options) or [])
    lake = str(tmp_path / "lake")
    generate.fn(lake=lake)
    assert asked["options"] == SamplingOptions()
    assert (asked["sweep_over"], asked["checkpoint"], asked["num_pictures"]) == ({}, [], 4)
    generate.fn(
        sampler="ddim", steps=8, cond_scale=3, negative_prompt="a hat", best_of=2, checkpoint=["latest"], lake=lake
    )
    assert asked["options"] == SamplingOptions("ddim", 8, cond_scale=3, negative_prompt="a hat", best_of=2)
    generate.fn(sweep=SweepOver(prior_cond_scale=[1, 2]), lake=lake)
    assert asked["sweep_over"] == {"prior_cond_scale": [1.0, 2.0]}


def test_what_cannot_be_drawn_is_refused_before_the_models_are_loaded(
    trained_lake: Lake, quick_recipe: Recipe, artifacts: list[dict[str, str]]
) -> None:
    for changes, sentence in (
        ({"prompts": [RED, " "]}, "an empty prompt"),
        ({"variations_of": ["none.png"]}, "there is no picture none.png"),
        ({"sweep_over": {"steps": [8]}}, "a sweep of one picture"),
        ({"checkpoint": ["runs/none"]}, "runs/none"),
    ):
        with pytest.raises(UsageError, match=sentence):
            drawn(quick_recipe, trained_lake, **changes)
    assert artifacts == []


def test_without_prompts_the_datasets_own_are_drawn(
    trained_copy: Lake, quick_recipe: Recipe, artifacts: list[dict[str, str]]
) -> None:
    (own,) = drawn(changed(quick_recipe, ["follow_up.prompts=[a samurai]"], "demo"), trained_copy, prompts=[])
    assert read_origin(own.read_bytes(), own.name)["prompt"] == "a samurai"
    verified = manifests.latest(trained_copy, "verify")
    assert verified
    paths = drawn(quick_recipe, trained_copy, prompts=[])
    prompts = [read_origin(path.read_bytes(), path.name)["prompt"] for path in paths]
    assert prompts == unseen_captions(verified, trained_copy)[:NUM_PROMPTS]
    assert inspect.signature(generate.fn).parameters["prompts"].default == []


def test_artifacts_link_to_the_page_that_the_workers_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SP_PAGE", raising=False)
    assert page_address() == PAGE
    monkeypatch.setenv("SP_PAGE", "https://gpu.example/")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(tasks.generate, "draw", lambda *_, **options: asked.update(options) or [])
    generate.fn(lake=str(tmp_path / "lake"))
    assert asked["page"] == "https://gpu.example"
    generate.fn(lake=str(tmp_path / "lake"), page="")
    assert asked["page"] == "", "no links"
    made: list[dict[str, str]] = []
    monkeypatch.setattr(tasks.report, "create_link_artifact", lambda **artifact: made.append(artifact))
    monkeypatch.setattr(tasks.report, "_write", lambda *_: "reports/judge.html")
    tasks.report.report.fn(load_recipe("demo"), str(tmp_path / "lake"), "judge")
    assert made[0]["link"] == "https://gpu.example/lake/reports/judge.html"
