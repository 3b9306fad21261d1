"""What the automations of `sp-data deploy` hear, by Prefect's own triggers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent

from deployments.wanted import MONTHLY, WEEKLY, Target, wanted
from sp_data.lake import Lake
from tasks.follow_up import DUE, PLACE, resource_of

NOW = datetime(2026, 11, 27, tzinfo=UTC)
RUN = "prefect.flow-run.0de5d181-1e30-4b26-b485-831d1cb3f19f"
ENDS_WELL = (
    "Completed",
    "Unchanged",
    "Changed: +3 −2",
    "Degraded: 1,200 quarantined",
    "Done: prior, decoder",
    "Not approved",
)


def trigger(name: str, lake: str, *, every: str | None = None, crons_there: tuple[str, ...] = ()) -> EventTrigger:
    target = Target("kids", "kids.yaml", lake, every, crons_there=crons_there)
    automations = wanted([target], [], ".", str(uuid4())).automations
    (named,) = (automation for automation in automations if name in automation.name)
    return EventTrigger.model_validate(named.fields["trigger"])


def hears(listener: EventTrigger, event: ReceivedEvent) -> bool:
    return listener.covers(event) and listener.expects(event.event)


def event(name: str, resource: dict[str, str], related: list[dict[str, str]] | None = None) -> ReceivedEvent:
    fields: dict[str, Any] = {"occurred": NOW, "received": NOW, "event": name, "id": uuid4(), "payload": {}}
    return ReceivedEvent(**fields, resource=resource, related=related or [])


def ended(name: str, state: str, *, flow: str = "dataset", dataset: str = "kids") -> ReceivedEvent:
    """As Prefect tells that a run ended in a state."""
    return event(
        f"prefect.flow-run.{name}",
        {"prefect.resource.id": RUN, "prefect.state-name": name, "prefect.state-type": state},
        [
            {
                "prefect.resource.id": f"prefect.flow.{uuid4()}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": flow,
            },
            {"prefect.resource.id": "prefect.tag.sp-data", "prefect.resource.role": "tag"},
            {"prefect.resource.id": f"prefect.tag.dataset:{dataset}", "prefect.resource.role": "tag"},
        ],
    )


@pytest.mark.parametrize("lake_name", ["lake", "my [old] lake*"])
def test_a_change_of_the_dataset_in_this_lake_alone_starts_a_fine_tuning(tmp_path: Path, lake_name: str) -> None:
    lake = str(tmp_path / lake_name)
    listener = trigger("fine-tune kids", lake)

    def due(dataset: str, lake: str) -> ReceivedEvent:
        return event(DUE, {"prefect.resource.id": resource_of(dataset), PLACE: Lake(lake, dataset).root})

    assert hears(listener, due("kids", lake))
    assert not hears(listener, due("kids2", lake))
    assert not hears(listener, due("kids", str(tmp_path / "another")))


@pytest.mark.parametrize("name", ENDS_WELL)
def test_a_run_that_ended_well_under_any_name_is_no_zombie_and_keeps_its_dataset_young(name: str) -> None:
    assert hears(trigger("heartbeat", "lake"), ended(name, "COMPLETED"))
    young = trigger("grows old", "lake")
    assert hears(young, ended(name, "COMPLETED"))
    assert hears(young, ended(name, "COMPLETED", flow="pipeline"))
    assert not hears(young, ended(name, "COMPLETED", flow="upkeep")), "an upkeep does not scrape"
    assert not hears(young, ended(name, "COMPLETED", dataset="others"))
    assert not hears(trigger("failed runs", "lake"), ended(name, "COMPLETED"))


@pytest.mark.parametrize(("name", "state"), [("Failed", "FAILED"), ("TimedOut", "FAILED"), ("Crashed", "CRASHED")])
def test_a_run_that_failed_is_told(name: str, state: str) -> None:
    listener = trigger("failed runs", "lake")
    assert hears(listener, ended(name, state, flow="finetune"))
    assert not hears(listener, ended(name, state, dataset="others"))
    assert hears(trigger("heartbeat", "lake"), ended(name, state))
    assert not hears(trigger("grows old", "lake"), ended(name, state))


def test_a_run_that_waits_for_its_approval_is_no_zombie() -> None:
    assert hears(trigger("heartbeat", "lake"), ended("Suspended", "PAUSED"))


def test_a_run_that_was_asked_to_end_and_says_no_more_is_a_zombie() -> None:
    listener = trigger("heartbeat", "lake")
    assert not hears(listener, ended("Cancelling", "CANCELLING"))
    assert not hears(listener, ended("Running", "RUNNING"))


def test_a_dataset_is_old_when_its_schedule_passed_twice() -> None:
    assert trigger("grows old", "lake").within.days == 14
    assert trigger("grows old", "lake", every="0 4 * * *").within.days == 2
    assert trigger("grows old", "lake", every="0 0 30 2 *").within.days == 732, "no day of it comes"
    assert trigger("grows old", "lake", every=MONTHLY).within.days == 70


def test_how_old_it_may_be_goes_by_the_schedule_that_the_server_has_unless_another_is_asked_for() -> None:
    daily = "0 4 * * *"
    assert trigger("grows old", "lake", crons_there=(daily,)).within.days == 2
    assert trigger("grows old", "lake", crons_there=(MONTHLY, daily)).within.days == 2, "the others only add runs"
    assert trigger("grows old", "lake", every=WEEKLY, crons_there=(daily,)).within.days == 14
    after = trigger("grows old", "lake", every=None, crons_there=(WEEKLY,))
    assert after.within.days == 14, "the next deployment, without --every, finds nothing to change"
