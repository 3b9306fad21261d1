"""HTTP to one wiki and its picture host: one session, one request at a time, one sentence for each failure.

The caller gets a response of any status that is the host's own answer; a guard's challenge, an unreachable host or a
body that breaks off is raised as an error.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import urlencode, urljoin

import requests
from requests.utils import select_proxy
from urllib3.exceptions import LocationParseError

from sp_data.errors import WikiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.web_address import NotAWebAddress, WebAddress, names_private_host, read_web_address
from sp_data.wiki.http.connections import Adapter, TooSlow
from sp_data.wiki.http.failures import blocked, connection_failure, unreachable
from sp_data.wiki.http.guard import PRIVATE, AddressRefused, Guard
from sp_data.wiki.http.politeness import Pace, Robots, RobotsCache, user_agent
from sp_data.wiki.http.retries import PoliteRetry

# What fetches pictures needs these too.
__all__ = ["BROKE_OFF", "CHUNK_BYTES", "AddressRefused", "BrokenOff", "Transport", "blocked", "body_of", "unreachable"]

MAX_REDIRECTS = 5
MAX_TEXT_BYTES = 64 << 20
"""Largest API answer, unpacked; a larger one is an attack or a fault."""
MAX_ROBOTS_BYTES = 500 << 10
"""How much of a robots.txt is read (RFC 9309, 2.5)."""
CHUNK_BYTES = 1 << 16
UNCHANGED_BYTES = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""Headers of requests for a picture's own bytes. No gzip: its Content-Length would not be the picture's."""

BROKE_OFF = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.ConnectionError,
    TooSlow,
)
"""What reading a body raises if it ends too early (requests makes a stall a ConnectionError)."""


class BrokenOff(Exception):
    """A body ended too early, or is longer than it may be. Never leaves sp_data.wiki."""


class Transport:
    """`proxy`: an HTTP proxy that answers for the wiki's host (the demo wiki is reached this way). `robots`: robots.txt
    files that earlier runs read; updated in place."""

    def __init__(self, source: Source, proxy: str | None = None, robots: RobotsCache | None = None) -> None:
        self.num_requests = 0
        self._source = source
        self._proxies = {"http": proxy} if proxy else {}
        self._pace = Pace(source.requests_per_second)
        self._guard = Guard.of_source(source)
        self._robots = Robots(self._read_robots, {} if robots is None else robots)
        self._retry_gap_s = 0.0
        self._session = requests.Session()
        if source.is_loopback:
            # A wiki on this machine is never behind the proxy that the environment may name.
            self._session.trust_env = False
            self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        # Otherwise requests would send the logins of ~/.netrc.
        self._session.auth = _no_login
        self._session.headers["User-Agent"] = user_agent(source.contact)
        adapter = Adapter(self._guard, PoliteRetry.of_a_guest(lambda: self._retry_gap_s))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def seconds_a_request(self) -> float:
        """Seconds from one request to the next at the polite rate, on average."""
        return self._pace.mean_gap_s

    @contextlib.contextmanager
    def get(self, address: str, params: Mapping[str, str | int]) -> Iterator[requests.Response]:
        """An open response of status < 500. Raises WikiBlocked, WikiUnreachable."""
        query = f"?{urlencode(params)}" if params else ""
        try:
            with self._follow_redirects(f"{address}{query}") as response:
                if response.status_code >= 500:
                    raise unreachable(address, f"answers HTTP {response.status_code} again and again")
                yield response
        except AddressRefused as error:
            raise _refused(address, str(error)) from error

    def original(self, url: str) -> contextlib.AbstractContextManager[requests.Response]:
        """A picture's own bytes, not a smaller WebP made of them; an open response of any status.

        Raises AddressRefused, WikiBlocked, WikiUnreachable.
        """
        return self._follow_redirects(f"{url}{'&' if '?' in url else '?'}format=original", UNCHANGED_BYTES)

    def listed(self, url: str) -> contextlib.AbstractContextManager[requests.Response]:
        """The same for an address from a list."""
        return self._follow_redirects(url, UNCHANGED_BYTES)

    @contextlib.contextmanager
    def _follow_redirects(
        self, address: str, headers: Mapping[str, str] | None = None, *, check_robots: bool = True
    ) -> Iterator[requests.Response]:
        """The response at the end of all redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            checked = self._checked(address)
            if check_robots:
                self._pace.slow_down(checked.netloc, self._robots.check(checked.url))
            with self._send(checked.url, headers) as response:
                if not response.is_redirect:
                    yield response
                    return
                address = _joined(checked.url, response.headers["Location"])
        raise AddressRefused("too many redirects")

    def _checked(self, text: str) -> WebAddress:
        """The address that `text` is. Raises AddressRefused; of two reasons, that it is private goes first."""
        try:
            address = read_web_address(text)
        except NotAWebAddress as error:
            raise AddressRefused(_reason(text, error)) from error
        self._guard.check_name(address)
        if self._proxy_for(address.url) is not None:
            self._guard.check_behind_proxy(address)
        return address

    def _proxy_for(self, url: str) -> str | None:
        settings = self._session.merge_environment_settings(url, dict(self._proxies), None, None, None)
        return select_proxy(url, settings["proxies"])

    def _read_robots(self, address: str) -> str:
        try:
            with self._follow_redirects(address, check_robots=False) as response:
                # RFC 9309: 4xx means that there are no rules; 5xx means that they are unknown, so keep out.
                if response.status_code >= 500:
                    raise unreachable(address, f"answers HTTP {response.status_code}")
                if response.status_code != 200:
                    return ""
                return body_of(response, MAX_ROBOTS_BYTES, cut=True).decode("utf-8-sig", "replace")
        except BrokenOff as error:
            raise unreachable(address, f"sends a robots.txt that {error}") from error
        except AddressRefused as error:
            if str(error) == PRIVATE:
                # The host itself, or where it sends us, is private: that is the answer, and nothing to remember.
                raise
            return ""

    @contextlib.contextmanager
    def _send(self, address: str, headers: Mapping[str, str] | None) -> Iterator[requests.Response]:
        netloc = read_web_address(address).netloc
        proxy = self._proxy_for(address)
        if proxy is not None and not _can_be_used(proxy):
            raise _no_proxy(address)
        self._pace.wait(netloc)
        self._retry_gap_s = self._pace.gap_s(netloc)
        self.num_requests += 1
        timeout_s = self._source.timeout_s
        try:
            response = self._session.get(
                address,
                headers=headers,
                stream=True,
                timeout=(timeout_s, timeout_s),
                proxies=self._proxies,
                allow_redirects=False,
            )
        except TooSlow as error:
            raise unreachable(address, str(error)) from error
        except requests.exceptions.ConnectionError as error:
            raise connection_failure(error, address, timeout_s, proxy) from error
        except requests.exceptions.InvalidSchema as error:
            # socks://, without the library for it.
            raise _no_proxy(address) from error
        except (LocationParseError, ValueError) as error:
            # requests raises ValueErrors about addresses, those in redirects included.
            raise AddressRefused("not a web address") from error
        except requests.exceptions.RequestException as error:
            raise unreachable(address, f"cannot be requested ({type(error).__name__})") from error
        except OSError as error:
            raise WikiError(
                f"the certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names in the environment cannot be read "
                f"({error.strerror or 'there is no such file'})"
            ) from error
        with response:
            if response.headers.get("cf-mitigated"):
                raise blocked(address, f"answers HTTP {response.status_code} with a challenge")
            if response.status_code == 429:
                raise blocked(address, "keeps answering 'too many requests'")
            if response.status_code == 407:
                raise unreachable(
                    address, "is asked for through a proxy that asks for a login (HTTP 407): see HTTP_PROXY"
                )
            yield response


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _joined(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise AddressRefused("a redirect to no web address") from error


def _reason(text: str, error: NotAWebAddress) -> str:
    if "login" in str(error):
        return "a login in the address"
    if not text.lower().startswith(("http://", "https://")):
        return "not a web address"
    # What urllib3 would connect to: 'http://127.0.0.1\\@example.org/' and 'http://2130706433/' are this machine.
    try:
        host = requests.models.parse_url(text).host or ""
    except LocationParseError:
        host = ""
    return PRIVATE if host and names_private_host(host) else "not a web address"


def _refused(address: str, reason: str) -> WikiUnreachable:
    if reason == PRIVATE:
        return unreachable(
            address,
            "leads to a private address; if it is a wiki in your own network, set it: "
            "--set source.allow_private_addresses=true",
        )
    return unreachable(address, f"leads to an address that is not allowed ({reason})")


def _can_be_used(proxy: str) -> bool:
    try:
        address = requests.models.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    except (LocationParseError, ValueError):
        return False
    return bool(address.host) and (address.scheme in ("http", "https") or str(address.scheme).startswith("socks"))


def _no_proxy(address: str) -> WikiUnreachable:
    return unreachable(
        address,
        "is asked for through a proxy whose address cannot be used: see HTTP_PROXY, HTTPS_PROXY and ALL_PROXY in the "
        "environment (expected http://HOST:PORT)",
    )


def body_of(response: requests.Response, max_bytes: int | None = None, *, cut: bool = False) -> bytes:
    """All of a text answer, unpacked; with `cut`, only its first `max_bytes`. Raises BrokenOff."""
    max_bytes = MAX_TEXT_BYTES if max_bytes is None else max_bytes
    text = io.BytesIO()
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            text.write(chunk)
            if text.tell() > max_bytes:
                if cut:
                    return text.getvalue()[:max_bytes]
                raise BrokenOff(f"has more than {max_bytes >> 20} MB")
    except TooSlow as error:
        raise BrokenOff(str(error)) from error
    except BROKE_OFF as error:
        raise BrokenOff("ended too early") from error
    return text.getvalue()
