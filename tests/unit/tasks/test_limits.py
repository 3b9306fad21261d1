"""When a run that waits may free the slot it waits for, and what runs say of what they hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from tasks import limits
from tasks.limits import CLAIMS, LOOK_AGAIN_S, LOOKS, LOOKS_A_TURN, LOOKS_BESIDE_OTHERS, may_free, one_at_a_time
from tasks.process_name import process_name

LIMIT = "sp-data-dataset-kids"
GONE = " ".join([*process_name().split(" ")[:-1], str(2**22 + 1)])
"""A process of this machine whose number no process can have."""


def test_a_slot_that_nobody_was_seen_to_hold_twice_is_freed_where_nobody_else_waits() -> None:
    assert [may_free(looks, "b", []) for looks in range(4)] == [False, False, True, True]


def test_beside_others_a_run_waits_for_their_labels_and_its_turn() -> None:
    """One of them may have just taken the slot, and not yet said so."""
    others = ["a", "c"]
    first_look = {own: next(n for n in range(99) if may_free(n, own, [*{"a", "b", "c"} - {own}])) for own in "abc"}
    assert first_look == {"a": 20, "b": 20 + LOOKS_A_TURN, "c": 20 + 2 * LOOKS_A_TURN}
    assert not may_free(LOOKS, "b", others)
    assert LOOKS_BESIDE_OTHERS * LOOK_AGAIN_S == 60, "a label is not as late as that"


class FakeServer:
    """One limit, and the labels of this run and of others. `events`: what this run did."""

    def __init__(self, others: list[str], active_slots: int) -> None:
        self.runs = [FlowRun(id=uuid4(), flow_id=uuid4(), labels={LIMIT: label}) for label in others]
        self.active_slots, self.id = active_slots, uuid4()
        self.events: list[str] = []

    def upsert_global_concurrency_limit_by_name(self, name: str, limit: int) -> None: ...

    def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self.runs

    def read_global_concurrency_limit_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=self.id, active_slots=self.active_slots)

    def delete_global_concurrency_limit_by_name(self, name: str) -> None:
        self.active_slots, self.id = 0, uuid4()
        self.events.append("freed")

    def update_flow_run_labels(self, _: str, labels: dict[str, str]) -> None:
        self.events.append(f"says {labels[LIMIT].partition(' ')[0] or 'nothing'}")

    @contextlib.contextmanager
    def slot(self, *_: Any, **__: Any) -> Iterator[None]:
        self.events.append("took")
        yield
        self.events.append("gave back")

    def took(self, slot: contextlib.ExitStack, name: str) -> bool:
        if self.active_slots:
            self.events.append("tried")
            return False
        slot.enter_context(self.slot())
        return True


def events(monkeypatch: pytest.MonkeyPatch, others: list[str], active_slots: int) -> list[str]:
    """What a run does that takes the slot and works. It is the first of all by its id."""
    server = FakeServer(others, active_slots)
    monkeypatch.setattr(limits, "get_client", lambda **_: contextlib.nullcontext(server))
    monkeypatch.setattr(limits, "_took", server.took)
    monkeypatch.setattr(limits, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(limits, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id="0")))
    with one_at_a_time("dataset", "kids"):
        server.events.append("works")
    return server.events


def test_a_run_says_what_it_does_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    done = events(monkeypatch, [], active_slots=0)
    assert done == ["says waits", "took", "says holds", "works", "gave back", "says nothing"]


@pytest.mark.parametrize(
    ("other", "tries"),
    [
        (f"holds {GONE}", LOOKS),
        (f"waits {GONE}", LOOKS),
        (f"waits {process_name()}", LOOKS_BESIDE_OTHERS),
        ("", LOOKS),
        ("waits elsewhere boot container 1", LOOKS_BESIDE_OTHERS),
    ],
    # The names of processes differ between pytest-xdist's workers, which must find the same tests.
    ids=["a dead holder", "a dead one that waited", "one that waits", "nobody", "one that waits elsewhere"],
)
def test_the_slot_of_a_run_that_is_gone_is_freed(monkeypatch: pytest.MonkeyPatch, other: str, tries: int) -> None:
    done = events(monkeypatch, [other], active_slots=1)
    assert done[: tries + 3] == ["says waits", *["tried"] * tries, "freed", "took"]


def test_the_slot_of_a_run_that_lives_is_not_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3 * LOOKS_BESIDE_OTHERS:
            raise TimeoutError

    monkeypatch.setattr(limits, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(TimeoutError):
        events(monkeypatch, [f"holds {process_name()}"], active_slots=1)


def test_a_slot_that_the_server_took_back_is_left_to_a_run_that_says_it_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For ten minutes: by then a run without a heartbeat is called crashed, and holds nothing."""
    done = events(monkeypatch, [f"holds {process_name()}"], active_slots=0)
    assert done == ["says waits", *["took", "gave back"] * CLAIMS, "took", *done[-4:]]
    assert done[-4:] == ["says holds", "works", "gave back", "says nothing"]
    assert events(monkeypatch, [f"holds {GONE}"], active_slots=0)[:3] == ["says waits", "took", "says holds"]
