"""Which tasks are retried, and when.

Only tasks that use the network are: a wiki that does not answer now may answer in a minute. A training is never retried
automatically: what ended it (memory, a wrong recipe) would end it again, hours later. A retry by hand resumes from its
latest checkpoint.
"""

from __future__ import annotations

from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from sp_data.errors import WikiUnreachable


def _is_network(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry can help: it cannot with a wiki that refuses us, or with a wrong recipe."""
    return isinstance(state.result(raise_on_failure=False), WikiUnreachable)


NEVER: dict[str, Any] = {"retries": 0}
ON_NETWORK_ERRORS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": 20,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_network,
}
