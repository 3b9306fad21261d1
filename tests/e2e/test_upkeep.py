"""The monthly flow on a real Prefect server: garbage and old runs go, everything else stays."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

import pytest
from e2e.prefect_api import post

from flows.upkeep import upkeep
from sp_data import manifest as manifests
from sp_data.lake import Lake
from tasks.limits import tag_of
from tasks.upkeep import remove_old_runs

GARBAGE = "shards/99999.tar"


def test_upkeep_removes_what_no_manifest_names(api: str, lake_copy: Lake) -> None:
    lake_copy.write_bytes(GARBAGE, b"x" * 100_000)
    before = manifests.latest(lake_copy, "verify")
    state: Any = upkeep(recipe="demo", lake=lake_copy.url, keep_runs_days=36_500, return_state=True)
    assert state.name == "Unchanged", state
    assert state.message == "0.1 MB freed, 0 old runs removed"
    assert not lake_copy.exists(GARBAGE)
    assert manifests.latest(lake_copy, "verify") == before


def test_old_runs_of_this_dataset_alone_are_removed(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, of_another, waiting = (
        run(api, "old", "COMPLETED"),
        run(api, "other", "COMPLETED"),
        run(api, "old", "SCHEDULED"),
    )

    class Later(datetime):
        """The clock of forty days from now: the server says itself when a run ended."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=40)

    monkeypatch.setattr("tasks.upkeep.datetime", Later)
    assert remove_old_runs.fn("old", keep_days=41) == 0
    assert remove_old_runs.fn("old", keep_days=39) == 1
    assert runs_left(api, {old, of_another, waiting}) == {of_another, waiting}


def run(api: str, dataset: str, state: str) -> str:
    flow = post(api, "/flows/", {"name": "dataset"})
    made = post(api, "/flow_runs/", {"flow_id": flow["id"], "tags": [tag_of(dataset)], "state": {"type": state}})
    return str(made["id"])


def runs_left(api: str, runs: set[str]) -> set[str]:
    found = post(api, "/flow_runs/filter", {"flow_runs": {"id": {"any_": sorted(runs)}}})
    return {run["id"] for run in found}
