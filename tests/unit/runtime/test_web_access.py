"""Which names a server of ours is known by, and which pages may ask it."""

from __future__ import annotations

import socket

import pytest
from fuzzing import few_and_many, fuzz
from hypothesis import strategies as st

from sp_data.runtime.web_access import hostname, is_asked_by_its_name, is_asked_from_itself, is_loopback


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "127.0.0.1:1"])
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.7"])
def test_this_machine_s_own_names_are_known(host: str, listens_on: str) -> None:
    assert is_asked_by_its_name(host, listens_on)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "", "10.0.0.1"]
)
def test_other_names_are_not(host: str) -> None:
    assert not is_asked_by_its_name(host, "127.0.0.1")


def test_beyond_this_machine_numbers_and_its_own_name_are_known() -> None:
    assert is_asked_by_its_name("192.168.0.7:1234", "0.0.0.0")
    assert is_asked_by_its_name(f"{socket.gethostname()}:1234", "0.0.0.0")
    assert not is_asked_by_its_name("evil.example", "0.0.0.0")


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        (None, "127.0.0.1:1", True),
        ("http://127.0.0.1:1", "127.0.0.1:1", True),
        ("https://kids.example", "kids.example", True),
        ("http://127.0.0.1:2", "127.0.0.1:1", False),
        ("null", "127.0.0.1:1", False),
        ("", "127.0.0.1:1", False),
        ("http://", "", False),
        ("chrome-extension://127.0.0.1:1", "127.0.0.1:1", False),
        ("http://127.0.0.1:1@evil.example", "127.0.0.1:1", False),
    ],
)
def test_a_page_is_known_by_its_origin(origin: str | None, host: str, own: bool) -> None:
    assert is_asked_from_itself(origin, host) is own


@few_and_many
def test_any_host_is_known_or_not(num_inputs: int) -> None:
    def read(host: str) -> None:
        if is_asked_by_its_name(host, "127.0.0.1"):
            assert is_loopback(hostname(host))

    fuzz(st.one_of(st.text(max_size=20), st.from_regex(r"[\[\]:.@/\\0-9a-z]{0,12}")), read, num_inputs)
