"""What every stage does: work once, change nothing afterwards, work again where a file is missing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sp_data import manifest as manifests
from sp_data.errors import LakeBusy
from sp_data.lake import Lake
from sp_data.manifest import Counts
from sp_data.recipe import demo
from sp_data.stage import StageOutput, StageResult, StageRun


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    """A stage without inputs that makes one file."""
    return StageRun("draw", 1, demo(), {"colour": "red"}, {}, Lake(str(tmp_path), "kids"))


def draw(run: StageRun, **options: object) -> StageResult:
    def work() -> StageOutput:
        entry = run.lake.write_bytes("drawn/kid.txt", str(run.identity_fields["colour"]).encode())
        return StageOutput(Counts(in_=1, out=1), [entry], "drew a kid")

    return run.once(work, **options)  # type: ignore[arg-type]


def test_it_works_once_and_is_unchanged_afterwards(run: StageRun) -> None:
    first, second = draw(run), draw(run)
    assert (first.state, second.state, second.manifest) == ("done", "unchanged", first.manifest)
    assert first.manifest.identity == run.identity == manifests.identity_of("draw", 1, {"colour": "red"}, {})
    assert manifests.latest(run.lake, "draw") == first.manifest


def test_a_lost_file_comes_back_with_the_same_digest(run: StageRun) -> None:
    first = draw(run)
    run.lake.remove("drawn/kid.txt")
    second = draw(run)
    assert (second.state, second.manifest.digest) == ("done", first.manifest.digest)
    assert run.lake.exists("drawn/kid.txt")


def test_it_works_again_where_its_own_check_finds_something_missing(run: StageRun) -> None:
    draw(run)
    assert draw(run, is_whole=lambda manifest: manifest.stage == "draw").state == "unchanged"
    assert draw(run, is_whole=lambda _: False).state == "done"


def test_it_works_again_when_asked_to(run: StageRun) -> None:
    draw(run)
    assert draw(run, again=True).state == "done"


def test_another_recipe_is_another_snapshot_and_a_recipe_changed_back_points_to_the_first(run: StageRun) -> None:
    red = draw(run).manifest
    blue = draw(replace(run, identity_fields={"colour": "blue"})).manifest
    assert (blue.previous, manifests.latest(run.lake, "draw")) == (red.identity, blue)
    run.lake.write_bytes("drawn/kid.txt", b"red")
    assert draw(run).state == "unchanged"
    assert manifests.latest(run.lake, "draw") == red


def test_two_writers_are_refused_and_another_part_of_the_folder_is_not(run: StageRun) -> None:
    def beside(part: str | None) -> StageResult:
        return run.once(lambda: StageOutput(Counts(in_=0, out=0), [], "nothing"), part=part)

    outcomes: list[object] = []

    def attempt(part: str | None) -> None:
        try:
            outcomes.append(beside(part).state)
        except LakeBusy:
            outcomes.append("busy")

    with run.lake.writer():
        for part in (None, "drawings"):
            thread = threading.Thread(target=attempt, args=(part,))
            thread.start()
            thread.join()
    assert outcomes == ["busy", "done"]
