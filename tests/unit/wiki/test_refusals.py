"""When a picture that did not come is asked for again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.wiki.refusals import (
    A_DAY_S,
    FAILURES_IN_A_ROW,
    LONGEST_WAIT_S,
    RUNS_A_PICTURE,
    FetchRefusal,
    HostFailures,
    may_come,
    next_due,
)

NOW = 1_800_000_000.0


def test_it_is_asked_for_in_three_runs_and_then_less_and_less_often():
    waits = [FetchRefusal("not-found", runs, NOW).due_at - NOW for runs in range(RUNS_A_PICTURE, 12)]
    assert [wait / A_DAY_S for wait in waits] == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert all(FetchRefusal("not-found", runs, NOW).is_due(NOW) for runs in range(RUNS_A_PICTURE))


@given(st.integers(0, 10**9), st.floats(0, 1e11))
def test_no_number_of_runs_delays_it_for_more_than_the_longest_wait(runs, at):
    refusal = FetchRefusal("cut-off", runs, at)
    assert refusal.is_due(at + LONGEST_WAIT_S + 1)
    assert refusal.is_due(at - 1), "a clock that was put back"
    later = [FetchRefusal("cut-off", runs + more, at).due_at for more in range(4)]
    assert all(first <= second for first, second in pairwise(later))


@pytest.mark.parametrize(
    ("status", "again"),
    [
        ("ok", False),
        ("forgotten", False),
        ("noai", False),
        ("hidden", False),
        ("not-an-address", False),
        ("not-an-address (a line end, tab or control character in it)", False),
        ("cut-off", True),
        ("not-found", True),
        ("not-an-image", True),
        ("sha1-mismatch", True),
        ("mime-not-wanted (image/bmp)", True),
        ("address-refused (too many redirects)", True),
        ("unreachable", True),
        ("refused", True),
        ("host-refuses", True),
        ("http-418", True),
        ("http-503", True),
    ],
)
def test_only_what_time_cannot_change_is_settled(status, again):
    assert may_come(status) is again
    assert FetchRefusal(status, 9, NOW).is_due(NOW + 2 * LONGEST_WAIT_S) is again


def test_the_first_of_several_that_is_due_counts():
    refusals = [FetchRefusal("not-found", 4, NOW), FetchRefusal("noai", 1, NOW), FetchRefusal("cut-off", 3, NOW)]
    assert next_due(refusals) == NOW + A_DAY_S
    assert next_due([]) == 0.0


def test_hosts_are_counted_each_for_itself_and_an_answer_forgives():
    hosts = HostFailures()
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert not hosts.failed("a.example")
        assert not hosts.failed("b.example")
    hosts.answered("a.example")
    assert not hosts.failed("a.example")
    assert hosts.failed("b.example")
