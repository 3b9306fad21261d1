"""Which tasks are tried again, and when.

Only what asks the network is: a wiki that does not answer now may answer in a minute. A training is never retried by
itself: what ended it (memory, a wrong recipe) ends it again, hours later. A retry by hand goes on from its latest
checkpoint.
"""

from __future__ import annotations

from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from sp_data.errors import WikiUnreachable


def _is_network(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only what a second try can cure: a wiki that refuses us, or a wrong recipe, stays so."""
    return isinstance(state.result(raise_on_failure=False), WikiUnreachable)


NEVER: dict[str, Any] = {"retries": 0}
ON_NETWORK_ERRORS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": 20,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_network,
}
