"""What `sp-data deploy` makes of a server's answers: pages, refusals, silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.reconcile import Reconciler
from deployments.wanted import Wanted
from sp_data.errors import StageError

PAGE = 3


class FakeClient:
    """Prefect's client as far as it is used here."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server/api")

    def request(self, method: str, path: str, json: Any = None) -> httpx.Response:
        return self._client.request(method, path, json=json).raise_for_status()


def reconciler(answer: Callable[[httpx.Request], httpx.Response]) -> Reconciler:
    return Reconciler(cast("SyncPrefectClient", FakeClient(answer)))


def test_a_dataset_of_more_objects_than_a_page_is_removed_whole() -> None:
    there = [{"id": str(number), "name": "kids", "entrypoint": "flows.dataset.dataset"} for number in range(8)]
    deleted: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            deleted.append(request.url.path)
            return httpx.Response(204)
        offset = httpx.Response(200, content=request.content).json()["offset"]
        return httpx.Response(200, json=there[offset : offset + PAGE])

    changes = reconciler(answer).remove(["kids"])
    assert deleted == [f"/api/{kind}/{number}" for kind in ("deployments", "automations") for number in range(8)]
    assert len(changes) == 16


def test_a_server_that_goes_away_is_one_sentence() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/work_pools/sp-data"):
            return httpx.Response(200, json={})
        raise httpx.ConnectError("All attempts failed")

    with pytest.raises(StageError) as refused:
        reconciler(answer).apply(Wanted((), ()))
    assert str(refused.value) == (
        "the Prefect server no longer answers (GET /work_pools/sp-data/queues/gpu: All attempts failed); run "
        "the same command again: what is done already stays as it is"
    )


def test_a_refusal_says_what_was_refused_and_why() -> None:
    with pytest.raises(StageError, match="refuses GET /work_pools/sp-data: HTTP 403 no entry"):
        reconciler(lambda _: httpx.Response(403, text="no entry")).apply(Wanted((), ()))
