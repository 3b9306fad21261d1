"""Which requests are sent again, and after how long."""

from __future__ import annotations

from typing import Any, Self

from urllib3 import BaseHTTPResponse, Retry

from sp_data.errors import WikiBlocked

LONGEST_WAIT_S = 300.0
"""If a wiki asks for a longer wait, the run ends, and can be started again later."""
RETRIED = (429, 500, 502, 503, 504)
"""HTTP statuses that another try may cure."""


class PoliteRetry(Retry):
    """urllib3's Retry, polite: retries connection errors, 429 and 5xx, obeys Retry-After, backs off with jitter.

    Without a Retry-After it waits 0, 1, 2, 4, 8 s (and up to 1 s of jitter), but never less than the gap between
    requests (`gap_s`). If the wiki asks for more than LONGEST_WAIT_S, the request raises WikiBlocked.
    """

    gap_s: float = 0.0

    @classmethod
    def of_a_guest(cls, gap_s: float = 0.0) -> Self:
        retry = cls(
            total=5,
            connect=2,
            read=3,
            status_forcelist=RETRIED,
            allowed_methods=frozenset({"GET"}),
            backoff_factor=0.5,
            backoff_jitter=1.0,
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        retry.gap_s = gap_s
        return retry

    def new(self, **changes: Any) -> Self:
        retry = super().new(**changes)
        retry.gap_s = self.gap_s
        return retry

    def get_backoff_time(self) -> float:
        return max(super().get_backoff_time(), self.gap_s)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wait_s = super().get_retry_after(response)
        if wait_s is not None:
            check_wait(wait_s)
        return wait_s


def check_wait(wait_s: float) -> None:
    """Raises WikiBlocked if `wait_s` is longer than LONGEST_WAIT_S."""
    if wait_s > LONGEST_WAIT_S:
        raise WikiBlocked(
            f"the wiki asks to be left alone for {wait_s / 60:.0f} minutes; what was fetched is kept, "
            "run the same command again after that"
        )
