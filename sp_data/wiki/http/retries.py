"""Which requests are sent again, and after how long."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable
from typing import Any, Self

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader, MaxRetryError

from sp_data.errors import WikiBlocked

LONGEST_WAIT_S = 300.0
"""If a wiki asks for a longer wait, the run ends, and can be started again later."""
RETRIED = (429, 500, 502, 503, 504)
"""HTTP statuses that another try may cure."""
NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""Errors of a look-up that are an answer; others, such as EAI_AGAIN, mean that there was none."""


class PoliteRetry(Retry):
    """urllib3's Retry, polite: retries connection errors, 429 and 5xx, obeys Retry-After, backs off with jitter.

    Without a Retry-After it waits 0, 1, 2, 4, 8 s (and up to 1 s of jitter), but never less than the gap between
    requests (`gap_s`). If the wiki asks for more than LONGEST_WAIT_S, the request raises WikiBlocked. What another try
    cannot cure is not tried again: a certificate, TLS where there is none, a name that does not
    exist, a proxy that refuses.
    """

    gap_s: Callable[[], float] = staticmethod(lambda: 0.0)

    @classmethod
    def of_a_guest(cls, gap_s: Callable[[], float] = lambda: 0.0) -> Self:
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
        return max(super().get_backoff_time(), self.gap_s())

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        if error is not None and _is_final(error):
            raise MaxRetryError(_pool, url or "", error) from error
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            wait_s = super().get_retry_after(response)
        except (ValueError, OverflowError, InvalidHeader):
            # A date that is none, or a number of thousands of digits.
            wait_s = math.inf if response.headers.get("Retry-After", "").strip().isdecimal() else None
        if wait_s is not None:
            check_wait(wait_s)
        return wait_s


def causes(error: BaseException) -> list[BaseException]:
    """An exception and what it was raised from, wrappers of requests and urllib3 included; the outermost first."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or any(one is other for other in found):
            continue
        found.append(one)
        pending += [getattr(one, "reason", None), getattr(one, "original_error", None), *one.args]
        pending += [one.__cause__, one.__context__]
    return found


def _is_final(error: Exception) -> bool:
    return any(
        isinstance(cause, ssl.SSLCertVerificationError)
        or (isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause))
        or (isinstance(cause, OSError) and "Tunnel connection failed: 4" in str(cause))
        or (isinstance(cause, socket.gaierror) and cause.errno in NO_SUCH_NAME)
        for cause in causes(error)
    )


def check_wait(wait_s: float) -> None:
    """Raises WikiBlocked if `wait_s` is longer than LONGEST_WAIT_S."""
    if wait_s > LONGEST_WAIT_S:
        raise WikiBlocked(
            f"the wiki asks to be left alone for {_in_words(wait_s)}; what was fetched is kept, "
            "run the same command again after that"
        )


def _in_words(wait_s: float) -> str:
    return f"{wait_s / 60:.0f} minutes" if wait_s < 1e6 else "more than a week"
