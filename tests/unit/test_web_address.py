"""Web addresses: one reading for all parsers, or a refusal."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from fuzzing import few_and_many, fuzz
from hypothesis import strategies as st
from urllib3.util import parse_url

from sp_data.web_address import (
    NotAWebAddress,
    is_link_local,
    is_private_ip,
    names_private_host,
    read_web_address,
    without_login,
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTP://Example.org:80/a b.png", "http://example.org/a%20b.png"),
        ("https://example.org:8443?x=1#top", "https://example.org:8443/?x=1"),
        ("https://Ünï.example/ä", "https://xn--n-nga1b.example/%C3%A4"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://example.org/a/../b", "http://example.org/b"),
        ("http://example.org/File:A@b.png", "http://example.org/File:A@b.png"),
    ],
)
def test_an_address_has_one_form(text, url):
    assert read_web_address(text).url == url
    assert read_web_address(url).url == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://127.0.0.1\\@example.org/", "backslash"),
        ("http://example.org/a\\b", "backslash"),
        ("http://me:secret@example.org/", "login"),
        ("http://me@example.org/", "login"),
        ("http://me%40example.org/", "login"),
        ("http://exa\tmple.org/", "control character"),
        ("http://example.org/\r\nX: y", "control character"),
        ("http://exa mple.org/", "host"),
        ("http://2130706433/", "number"),
        ("http://0x7f.0.0.1/", "number"),
        ("http://0177.0.0.1/", "number"),
        ("http://127.1/", "number"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://example.org:99999/", "read"),
        ("http://example.org:0/", "port"),
        ("ftp://example.org/", "http"),
        ("file:///etc/passwd", "http"),
        ("http:example.org", "http"),
        ("example.org", "http"),
        ("http://", "host"),
        ("", "http"),
    ],
)
def test_what_parsers_disagree_about_is_refused(text, why):
    with pytest.raises(NotAWebAddress, match=why) as refusal:
        read_web_address(text)
    assert "secret" not in str(refusal.value)


@few_and_many
def test_all_parsers_read_an_accepted_address_alike(num_inputs):
    part = st.sampled_from(
        [
            "http://",
            "https:",
            "//",
            "127.0.0.1",
            "example.org",
            "[::1]",
            "@",
            "\\",
            "/",
            "?",
            "#",
            ":80",
            ":",
            "%",
            "。",
        ]
    )
    texts = st.lists(part | st.text(max_size=4), max_size=9).map("".join)

    def read(text: str) -> None:
        address = read_web_address(text)
        by_urllib, by_urllib3 = urlsplit(address.url), parse_url(address.url)
        host = str(by_urllib3.host).strip("[]")
        assert address.host == by_urllib.hostname == host
        assert (by_urllib.port, by_urllib.username, by_urllib3.auth) == (by_urllib3.port, None, None)
        assert read_web_address(address.url) == address

    fuzz(texts.map(lambda text: f"http://{text}") | texts, read, num_inputs, refusals=(NotAWebAddress,))


@pytest.mark.parametrize(
    ("ip", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("64:ff9b::808:808", False),
        ("::ffff:8.8.8.8", False),
        ("127.0.0.1", True),
        ("10.0.0.7", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("192.0.0.192", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True),
        ("2002:7f00:1::", True),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", True),
        ("fd00::1", True),
        ("fec0::1", True),
        ("ff02::1", True),
        ("::7f00:1", True),
    ],
)
def test_addresses_of_no_public_host_are_private_in_every_form(ip, private):
    assert is_private_ip(ipaddress.ip_address(ip)) is private


def test_link_local_addresses():
    assert is_link_local(ipaddress.ip_address("::ffff:169.254.169.254"))
    assert not is_link_local(ipaddress.ip_address("127.0.0.1"))


def test_hosts_that_are_private_by_name():
    assert all(map(names_private_host, ["localhost", "LOCALHOST.", "a.localhost", "wiki", "nas.local", "127.1", "::1"]))
    assert not any(map(names_private_host, ["example.org", "8.8.8.8", "localhost.example.org"]))


def test_a_login_is_masked_wherever_an_address_is_shown():
    assert without_login("see http://me:secret@x.org/a@b?c=d@e.") == "see http://***@x.org/a@b?c=d@e."
