"""Why a picture did not come, when it is asked for again, and when a host is left alone.

Nothing that time may change is final. A picture that did not come is asked for again in the next two runs, and then
less and less often: not before 1, 2, 4, 8 and 16 days have passed since the last try, and after that once in 30 days.
`--reconcile` asks for all of them at once.

One picture that fails is a reason in its row. A host that fails for FAILURES_IN_A_ROW pictures is at fault itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from sp_data.wiki.catalogue import OK
from sp_data.wiki.forgotten import FORGOTTEN

FAILURES_IN_A_ROW = 5
"""After so many pictures in a row that a host did not give (no answer, HTTP 401, 403 or 5xx), the host is at fault."""
RUNS_A_PICTURE = 3
"""In how many runs a failing picture is asked for without a wait between them."""
A_DAY_S = 24 * 3600.0
LONGEST_WAIT_S = 30 * A_DAY_S

CUT_OFF = "cut-off"
TOO_LARGE = "too-large"
TOO_SLOW = "too-slow"
"""It came more slowly than the least rate."""
SHA1_MISMATCH = "sha1-mismatch"
NOT_FOUND = "not-found"
HIDDEN = "hidden"
UNREACHABLE = "unreachable"
"""The connection broke, or nothing came."""
REFUSED = "refused"
"""The host's robots.txt forbids it, or the host asks to be left alone."""
HOST_REFUSES = "host-refuses"
"""Not asked for: its host failed for other pictures. Of a wiki: its host is not the usual one, and fails."""
ADDRESS_REFUSED = "address-refused"
"""Its address leads into a private network, or is none that may be asked."""
NO_AI = "noai"
"""The host's X-Robots-Tag forbids training models on it."""

SETTLED = (OK, FORGOTTEN, NO_AI, HIDDEN)


@dataclass(frozen=True, slots=True)
class FetchRefusal:
    """Why a picture was not fetched, in how many runs it was tried, and when last (seconds since 1970)."""

    status: str
    runs: int
    at: float = 0.0
    was_asked: bool = True
    """Whether it failed itself the last time, and was not only left out with its host."""

    @property
    def is_settled(self) -> bool:
        """Whether no other try can fetch the picture."""
        return not may_come(self.status)

    @property
    def due_at(self) -> float:
        """When it may be asked for again (seconds since 1970)."""
        if self.runs < RUNS_A_PICTURE:
            return 0.0
        # The exponent is bounded, as a float's is.
        return self.at + min(A_DAY_S * 2.0 ** min(self.runs - RUNS_A_PICTURE, 16), LONGEST_WAIT_S)

    def is_due(self, now: float) -> bool:
        """Whether it is asked for in a run at this time. A clock that was put back delays nothing."""
        return may_come(self.status) and (now >= self.due_at or now < self.at)

    def again(self, status: str) -> FetchRefusal:
        """After another run that asked for it, and in which it did not come."""
        return FetchRefusal(status, self.runs + 1, time.time())

    def left_out(self) -> FetchRefusal:
        """After another run that did not ask for it because its host failed. What is known of it stays."""
        return FetchRefusal(self.status or HOST_REFUSES, self.runs + 1, time.time(), was_asked=False)


NEVER_TRIED = FetchRefusal("", 0)


def may_come(status: str) -> bool:
    """Whether another try may fetch a picture with this status."""
    return status not in SETTLED and not status.startswith("not-an-address")


def is_hosts_failure(status: str) -> bool:
    """Whether a status speaks of the host rather than of the picture, if other pictures have it too."""
    return status in (UNREACHABLE, TOO_SLOW, REFUSED, HOST_REFUSES, "http-401", "http-403") or status.startswith(
        "http-5"
    )


def next_due(refusals: Iterable[FetchRefusal]) -> float:
    """When the first of them may be asked for again (seconds since 1970); 0 if there are none."""
    return min((refusal.due_at for refusal in refusals if not refusal.is_settled), default=0.0)


class HostFailures:
    """How many pictures in a row each host failed to give in this run, and which hosts are left alone."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self._skipped: set[str] = set()

    def answered(self, host: str) -> None:
        """The host gave what only a working host gives."""
        self._in_a_row[host] = 0

    def failed(self, host: str) -> bool:
        """Count a picture. True if it is the one after which the host is at fault."""
        self._in_a_row[host] += 1
        return self._in_a_row[host] == FAILURES_IN_A_ROW

    def skip(self, host: str) -> None:
        """Leave the host alone for the rest of the run."""
        self._skipped.add(host)

    def is_skipped(self, host: str) -> bool:
        return host in self._skipped


def host_of(url: str) -> str:
    """Host and port of an address, '' if it has none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
