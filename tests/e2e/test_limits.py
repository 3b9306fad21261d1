"""Prefect's global concurrency limits as tasks/limits.py takes and frees them, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import limits

NAME = "sp-data-dataset-limited"


@pytest.fixture
def client(server: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        limits._make(client, NAME)
        yield client
        client.delete_global_concurrency_limit_by_name(NAME)


def lease(client: SyncPrefectClient) -> UUID:
    """Take the slot as a run does that is then killed; its lease is what Prefect frees it by, minutes later."""
    taken = client.increment_concurrency_slots_with_lease([NAME], 1, "concurrency", lease_duration=60)
    return UUID(taken.json()["lease_id"])


def test_the_lease_of_a_run_that_is_gone_does_not_free_the_slot_of_the_next(client: SyncPrefectClient) -> None:
    of_the_dead = lease(client)
    limits._make_anew(client, NAME)
    assert limits._limit(client, NAME)[1] == 0
    lease(client)
    # What the server does when a lease ends.
    client.release_concurrency_slots_with_lease(of_the_dead)
    assert limits._limit(client, NAME)[1] == 1


def test_a_limit_that_is_missing_for_a_moment_is_no_leave_to_go_on(client: SyncPrefectClient) -> None:
    client.delete_global_concurrency_limit_by_name(NAME)
    with ExitStack() as slot:
        assert not limits._took(slot, NAME)
        assert limits._limit(client, NAME)[1] == 0, "and it is made again"
        limits._make(client, NAME)
        assert limits._took(slot, NAME)
        with ExitStack() as other:
            assert not limits._took(other, NAME)
    assert limits._limit(client, NAME)[1] == 0
